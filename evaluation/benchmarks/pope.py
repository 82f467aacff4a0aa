"""POPE: is an object in the picture? Random, popular and adversarial objects on 500 pictures of COCO val2014.

Source of the rules: arXiv 2305.10355 with its `evaluate.py` ("official"), and lmms-eval's task ("lmms_eval").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from vargpt_lightning.evaluation.base.benchmark import (
    Record,
    Score,
    check_protocol,
    counts,
    mean_interval,
)
from vargpt_lightning.evaluation.formats.layouts import (
    HubSource,
    Picture,
    Rows,
    find_parquet,
    image_in,
    read_jsonl,
    read_parquet,
    records,
)
from vargpt_lightning.evaluation.rules.shared import SHORT, check_parallel, mean, styled
from vargpt_lightning.evaluation.rules.yes_no import (
    check_unique,
    first_sentence,
    folder_with,
    key,
    lenient,
    nothing_found,
)
from vargpt_lightning.utils.errors import UserError

NAME = "pope"
TITLE = "POPE"
HUB = HubSource("POPE", split="test")
HEADLINE = "accuracy"
SCALE = 100
MAX_NEW_TOKENS = 128

STYLES = {"llava": SHORT, "plain": ""}
CATEGORIES = ("adversarial", "popular", "random")
COLUMNS = ("question_id", "question", "answer", "category")


def load(path: str | Path, pictures: bool = True) -> Rows:
    """The questions in the mirror's layout (all of them, or the config `Full`) or in the authors'.

    The authors' layout is `coco_pope_<category>.json`, one JSON object a line (in the folder, `coco/` or
    `output/coco/`), with the pictures of COCO val2014 in `val2014/`. A random file of 2910 lines is as good as one of
    3000. Answers become "yes" or "no", question ids strings.

    Raises:
        UserError: neither layout is there, columns are missing, a category or an answer is none of POPE's, or a
            question comes twice in a category.
    """
    path = Path(path)
    files = find_parquet(path, split="test") or [
        file for category in CATEGORIES for file in find_parquet(path, "Full", category)
    ]
    if files:
        rows = read_parquet(files, required=COLUMNS + ("image",) * pictures, pictures=pictures)
    else:
        rows = _authors(path, pictures)
    return check_unique(rows.map(_clean), record_id)


def _clean(record: Record) -> Record:
    where = f"POPE question {record['category']}/{record['question_id']}"
    if record["category"] not in CATEGORIES:
        raise UserError(f"{where}: the category is {record['category']!r}; POPE has {', '.join(CATEGORIES)}")
    return record | {"question_id": str(record["question_id"]), "answer": key(record["answer"], where)}


def _authors(path: Path, pictures: bool) -> Rows:
    folders = [path, path / "coco", path / "output" / "coco"]
    files = [path] if path.is_file() else next(filter(None, (sorted(f.glob("coco_pope_*.json")) for f in folders)), [])
    if not files:
        wanted = "data/test-*.parquet, Full/<category>-*.parquet or coco_pope_<category>.json"
        raise nothing_found(TITLE, path, wanted)
    parts = [
        (file.stem.removeprefix("coco_pope_"), read_jsonl(file, ("question_id", "image", "text", "label")))
        for file in files
    ]
    images = None
    if pictures:
        first = str(next(iter(parts[0][1]))["image"]) if len(parts[0][1]) else ""
        bases = [
            base / inside
            for base in (path, *path.absolute().parents[:3])
            for inside in ("val2014", "coco/val2014", "images", "")
        ]
        images = folder_with(bases, first, TITLE)

    def read() -> Iterator[Record]:
        number = 0
        for category, rows in parts:
            for row in rows:
                found = {"id": str(number), "question_id": row["question_id"], "question": row["text"]}
                found |= {"answer": row["label"], "image_source": Path(str(row["image"])).stem, "category": category}
                yield found | ({"image": image_in(images, str(row["image"]))} if images else {})
                number += 1

    return records(read, sum(len(rows) for _, rows in parts), str(path), pictures)


def record_id(record: Record) -> str:
    """Category and question id: the ids start again in each category."""
    return f"{record['category']}/{record['question_id']}"


def pictures(record: Record) -> list[Picture]:
    """The question's one picture."""
    return [record["image"]]


def prompt(record: Record, style: str = "llava") -> str:
    """The question, with the request for a short answer in LLaVA-1.5's style."""
    return str(record["question"]).strip() + styled(STYLES, style)


def score(output: str, record: Record, protocol: str = "lmms_eval") -> Score:
    """Score one output; `parsed` is "yes", "no" or None.

    "lmms_eval": exactly the word, in any case. "official": no, if the first sentence says so, else yes; what holds
    neither counts as the rule has it, with the status "unparsed" or "empty". "lenient": see `yes_no.lenient`.
    """
    check_protocol(protocol)
    right = key(record["answer"], f"POPE question {record.get('question_id')!r}")
    text = output.strip()
    said: str | None
    if protocol == "official":
        said, found = first_sentence(text)
    else:
        lowered = text.lower().strip()
        said = lenient(text) if protocol == "lenient" else lowered if lowered in ("yes", "no") else None
        found = said is not None
    return Score(float(said == right), said, "empty" if not text else "ok" if found else "unparsed")


def aggregate(records: Sequence[Record], scores: Sequence[Score], protocol: str = "lmms_eval") -> dict[str, float]:
    """Accuracy, precision, recall, F1 (yes is positive) and the share of yes, of all questions and by category.

    All come from one table of keys against readings, in which what could not be read is neither yes nor no. `f1_mean`
    is the mean of the categories' F1, as LLaVA reports it. `lmms_eval_*` are lmms-eval's own figures where they are
    computed otherwise: its recall (hence its F1) leaves out what could not be read, its yes-ratio is the keys'.
    The interval is over questions.
    """
    check_protocol(protocol)
    check_parallel(records, scores)
    keys = [key(record["answer"], "POPE") for record in records]
    found = _figures(keys, scores)
    places: dict[str, list[int]] = {}
    for place, record in enumerate(records):
        places.setdefault(str(record["category"]), []).append(place)
    order = sorted(places, key=lambda name: (CATEGORIES.index(name) if name in CATEGORIES else len(CATEGORIES), name))
    by_category = {
        category: _figures([keys[place] for place in places[category]], [scores[place] for place in places[category]])
        for category in order
    }
    found["f1_mean"] = mean([figures["f1"] for figures in by_category.values()])
    for category, figures in by_category.items():
        found |= {f"{name}/{category}": value for name, value in figures.items()}
    if protocol == "lmms_eval":
        found |= _reference_figures(keys, scores)
    low, high = mean_interval([each.value for each in scores])
    return {**found, **counts(scores), "low": low, "high": high}


def _figures(keys: Sequence[str], scores: Sequence[Score]) -> dict[str, float]:
    table = _table(keys, scores)
    positive, said_yes = sum(right == "yes" for right in keys), table["yes", "yes"] + table["no", "yes"]
    precision, recall = _share(table["yes", "yes"], said_yes), _share(table["yes", "yes"], positive)
    return {
        "accuracy": mean([float(each.parsed == right) for each, right in zip(scores, keys, strict=True)]),
        "precision": precision,
        "recall": recall,
        "f1": _f1(precision, recall),
        "yes_ratio": _share(said_yes, len(keys)),
    }


def _reference_figures(keys: Sequence[str], scores: Sequence[Score]) -> dict[str, float]:
    table = _table(keys, scores)
    precision = _share(table["yes", "yes"], table["yes", "yes"] + table["no", "yes"])
    recall = _share(table["yes", "yes"], table["yes", "yes"] + table["yes", "no"])
    return {
        "lmms_eval_recall": recall,
        "lmms_eval_f1": _f1(precision, recall),
        "lmms_eval_yes_ratio": _share(sum(right == "yes" for right in keys), len(keys)),
    }


def _table(keys: Sequence[str], scores: Sequence[Score]) -> dict[tuple[str, str], int]:
    """How often (key, reading) came up, for readings that are yes or no."""
    table = {(right, said): 0 for right in ("yes", "no") for said in ("yes", "no")}
    for right, each in zip(keys, scores, strict=True):
        if each.parsed in ("yes", "no"):
            table[right, each.parsed] += 1
    return table


def _f1(precision: float, recall: float) -> float:
    return _share(2 * precision * recall, precision + recall)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
