"""MME: two yes/no questions about each picture, in ten subtasks of perception and four of cognition.

Source of the rules: arXiv 2306.13394 with its `eval_tool/calculation.py` ("official"), and lmms-eval's task
("lmms_eval"), which is the same but for full stops and a lone y or n.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from vargpt_lightning.evaluation.base.benchmark import Record, Score, check_protocol, counts
from vargpt_lightning.evaluation.formats.layouts import (
    HubSource,
    Picture,
    Rows,
    find_parquet,
    read_parquet,
    records,
)
from vargpt_lightning.evaluation.rules.shared import SHORT, check_parallel, mean, styled
from vargpt_lightning.evaluation.rules.yes_no import (
    check_unique,
    first_four,
    key,
    lenient,
    nothing_found,
    strata_interval,
)
from vargpt_lightning.utils.errors import UserError

NAME = "mme"
TITLE = "MME"
HUB = HubSource("MME", split="test")
HEADLINE = "perception"
SCALE = 1
MAX_NEW_TOKENS = 16

PERCEPTION = (
    "existence",
    "count",
    "position",
    "color",
    "posters",
    "celebrity",
    "scene",
    "landmark",
    "artwork",
    "OCR",
)
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
SUBTASKS = (*PERCEPTION, *COGNITION)
COLUMNS = ("question_id", "question", "answer", "category")
STYLES = {"llava": SHORT, "plain": "", "qwen": " Answer:"}
OWN_TAIL = " Please answer yes or no."
IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


def load(path: str | Path, pictures: bool = True) -> Rows:
    """The questions in the mirror's layout or in the authors'. Answers become "Yes" or "No".

    The authors' layout is a folder for each subtask, with pictures and texts of the same name side by side or in
    `images/` (perhaps one folder deeper) and `questions_answers_YN/`; a text has a line `question<TAB>Yes|No` for each
    question. Pictures without a text are left out, and named in `skipped`.

    Raises:
        UserError: neither layout is there, columns are missing, a subtask or an answer is none of MME's, a text has
            another form or no picture, or a question comes twice for one picture.
    """
    path = Path(path)
    if files := find_parquet(path, split="test"):
        rows = read_parquet(files, required=COLUMNS + ("image",) * pictures, pictures=pictures)
    else:
        rows = _authors(path, pictures)
    return check_unique(rows.map(_clean), record_id)


def _clean(record: Record) -> Record:
    where = f"MME question {record['question_id']}"
    _check_subtask(record["category"], where)
    return record | {"answer": key(record["answer"], where).capitalize()}


def _check_subtask(category: object, where: str) -> None:
    if category not in SUBTASKS:
        raise UserError(f"{where}: the subtask is {category!r}; MME has {', '.join(SUBTASKS)}")


def _authors(path: Path, pictures: bool) -> Rows:
    roots = [path, *sorted(path.glob("*/")), *sorted(path.glob("*/*/"))] if path.is_dir() else []
    root = next((root for root in roots if any((root / subtask).is_dir() for subtask in SUBTASKS)), None)
    if root is None:
        raise nothing_found(TITLE, path, f"data/test-*.parquet, or a folder for each subtask ({', '.join(SUBTASKS)})")
    found, skipped = [], []
    for subtask in SUBTASKS:
        if (root / subtask).is_dir():
            texts, images = _subtask_files(root / subtask)
            found += [(subtask, text, _picture_of(text, images)) for text in texts]
            stems = {text.stem for text in texts}
            skipped += [f"{subtask}/{name.name}: no questions about it" for name in images if name.stem not in stems]

    def read() -> Iterator[Record]:
        for subtask, text, image in found:
            for question, answer in _lines(text):
                row = {"question_id": f"{subtask}/{image.name}", "question": question, "answer": answer}
                picture = {"image": Picture(path=image, name=row["question_id"])} if pictures else {}
                yield row | {"category": subtask} | picture

    rows = records(read, None, str(root), pictures)
    rows.skipped = skipped
    return rows


def _subtask_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """The texts and the pictures of a subtask's folder."""
    apart = (folder / "questions_answers_YN").is_dir()
    texts = sorted((folder / "questions_answers_YN" if apart else folder).glob("*.txt"))
    shown = (folder / "images").rglob("*") if apart else folder.glob("*")
    return texts, sorted(file for file in shown if file.suffix.lower() in IMAGES)


def _picture_of(text: Path, images: Sequence[Path]) -> Path:
    found = [image for image in images if image.stem == text.stem]
    if len(found) != 1:
        raise UserError(f"{text}: {len(found)} pictures are named {text.stem}; expected one")
    return found[0]


def _lines(text: Path) -> Iterator[tuple[str, str]]:
    """Question and answer of each line that is not empty."""
    try:
        content = text.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{text}: byte {error.start} is not UTF-8; expected a file in UTF-8") from error
    for number, line in enumerate(content.split("\n"), 1):
        question, tab, answer = line.strip().rpartition("\t")
        if line.strip() and not tab:
            raise UserError(f"{text}, line {number}: {line.strip()[:60]!r}; expected a question, a tab, and Yes or No")
        if tab:
            yield question.strip(), answer


def record_id(record: Record) -> str:
    """Subtask, picture and question: a picture's two questions share its `question_id`."""
    return f"{record['question_id']}/{record['question']}"


def group(record: Record) -> str:
    """The picture, whose two questions belong together: a subset has both or neither."""
    return f"{record['category']}/{record['question_id']}"


def pictures(record: Record) -> list[Picture]:
    """The question's one picture."""
    return [record["image"]]


def prompt(record: Record, style: str = "llava") -> str:
    """The question; its own request for yes or no gives way to the style's ending, where the style has one."""
    question, ending = str(record["question"]).strip(), styled(STYLES, style)
    return question.replace(OWN_TAIL, "") + ending if ending else question


def score(output: str, record: Record, protocol: str = "lmms_eval") -> Score:
    """Score one output; `parsed` is "yes", "no" or None.

    "official": the lower-cased text, or else its first four characters. "lmms_eval": the same without full stops, and
    a lone y or n counts. "lenient": see `yes_no.lenient`.
    """
    check_protocol(protocol)
    right = key(record["answer"], f"MME question {record.get('question_id')!r}")
    text = output.strip()
    said: str | None
    if protocol == "lenient":
        said = lenient(text)
    elif protocol == "official":
        said = first_four(text.lower())
    else:
        bare = text.lower().strip().replace(".", "")
        said = {"y": "yes", "n": "no"}.get(bare) or first_four(bare)
    return Score(float(said == right), said, "empty" if not text else "ok" if said else "unparsed")


def aggregate(
    records: Sequence[Record],
    scores: Sequence[Score],
    protocol: str = "lmms_eval",
    allow_partial: bool = False,
) -> dict[str, float]:
    """The sums over the subtasks of acc + acc+, as published: perception up to 2000, cognition up to 800.

    acc is 100 x the share of right answers, acc+ 100 x the share of pictures with both right; both are averaged over a
    subtask's pictures. `score/<subtask>` is their sum. "partial" is there when subtasks are missing or pictures were
    left out, which makes the sums incomparable. The interval resamples pictures within each subtask.

    Args:
        allow_partial: leave pictures out that have not two questions, and count them as "incomplete".

    Raises:
        UserError: such pictures without leave, or a subtask that MME has not.
    """
    check_protocol(protocol)
    check_parallel(records, scores)
    values: dict[tuple[str, str], list[float]] = {}
    for record, each in zip(records, scores, strict=True):
        _check_subtask(record["category"], f"MME question {record['question_id']}")
        values.setdefault((record["category"], str(record["question_id"])), []).append(each.value)
    odd = {image: len(found) for image, found in values.items() if len(found) != 2}
    if odd and not allow_partial:
        raise UserError(_unpaired(odd, len(values)))
    pairs = {
        subtask: [found for (place, image), found in values.items() if place == subtask and len(found) == 2]
        for subtask in SUBTASKS
    }
    there = {subtask: _subtask_score(found) for subtask, found in pairs.items() if found}
    result = {"perception": _sum(there, PERCEPTION), "cognition": _sum(there, COGNITION)}
    for name in ("score", "acc", "acc_plus"):
        result |= {f"{name}/{subtask}": figures[name] for subtask, figures in there.items()}
    if odd or len(there) < len(SUBTASKS):
        result |= {"partial": 1.0, "incomplete": float(len(odd)), "subtasks": float(len(there))}
    low, high = strata_interval([[_image_score(pair) for pair in pairs[subtask]] for subtask in PERCEPTION])
    return {**result, **counts(scores), "low": low, "high": high}


def _image_score(pair: Sequence[float]) -> float:
    return 100.0 * mean(pair) + 100.0 * (sum(pair) == 2)


def _subtask_score(pairs: Sequence[Sequence[float]]) -> dict[str, float]:
    acc = 100.0 * mean([mean(pair) for pair in pairs])
    acc_plus = 100.0 * mean([float(sum(pair) == 2) for pair in pairs])
    return {"score": mean([_image_score(pair) for pair in pairs]), "acc": acc, "acc_plus": acc_plus}


def _sum(there: dict[str, dict[str, float]], subtasks: Sequence[str]) -> float:
    """The sum over those subtasks that are there; nan of none, which is not 0 points."""
    found = [there[subtask]["score"] for subtask in subtasks if subtask in there]
    return sum(found) if found else float("nan")


def _unpaired(odd: dict[tuple[str, str], int], images: int) -> str:
    sizes = ", ".join(f"{times} with {size}" for size, times in sorted(Counter(odd.values()).items()))
    return (
        f"MME: {len(odd)} of {images} pictures do not have two questions ({sizes}), such as {next(iter(odd))[1]}; "
        f"--allow-partial leaves them out"
    )
