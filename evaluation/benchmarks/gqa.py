"""GQA: questions that were composed from scene graphs, one short key each; the balanced test-dev set.

Source of the rules: arXiv 1902.09506 with its `eval.py`, fed as LLaVA feeds it ("official"), and lmms-eval's exact
match ("lmms_eval").
"""

from __future__ import annotations

import ast
import re
import string
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

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
    PictureTable,
    Rows,
    find_parquet,
    image_in,
    read_json,
    read_parquet,
    records,
    require,
)
from vargpt_lightning.evaluation.rules.shared import SHORT, by_group, check_parallel, mean, styled
from vargpt_lightning.evaluation.rules.yes_no import check_unique, folder_with, lenient, nothing_found
from vargpt_lightning.utils.errors import UserError

NAME = "gqa"
TITLE = "GQA"
HUB = HubSource("GQA", config=("testdev_balanced_instructions", "testdev_balanced_images"), split="testdev")
HEADLINE = "accuracy"
SCALE = 100
MAX_NEW_TOKENS = 16

COLUMNS = ("id", "imageId", "question", "answer")
STYLES = {"llava": SHORT, "plain": "", "qwen": " Answer:"}
QUESTIONS = "testdev_balanced_questions.json"

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_NUMBERS = {
    word: str(number)
    for number, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
}
_ARTICLES = {"a", "an", "the"}
_HEDGES = {"or", "either", "not", "no", "neither", "nor", "never", "without"}
_STATED = re.compile(r"\banswer(?:\s+is|\s*:)\s*(.+)", re.IGNORECASE)


def load(path: str | Path, pictures: bool = True) -> Rows:
    """The questions in the mirror's layout, joined to their pictures when these are opened, or in the authors'.

    The mirror has the questions and the pictures in two configs, `testdev_balanced_instructions` and
    `testdev_balanced_images`; the authors have `testdev_balanced_questions.json` and `images/<imageId>.jpg`.

    Raises:
        UserError: neither layout is there, columns are missing, an answer is missing or no word, a question comes
            twice, or pictures are missing that questions name.
    """
    path = Path(path)
    if files := find_parquet(path, "testdev_balanced_instructions", "testdev"):
        rows = read_parquet(files, required=COLUMNS, pictures=pictures).map(_clean)
        if pictures and "image" not in rows.columns:
            rows = _joined(rows, path)
    else:
        rows = _authors(path, pictures).map(_clean)
    return check_unique(rows, record_id)


def _clean(record: Record) -> Record:
    texts = {"id": str(record["id"]), "imageId": str(record["imageId"])}
    return record | texts | {"answer": _key(record["answer"], f"GQA question {record['id']}")}


def _key(answer: Any, where: str) -> str:
    """The key as a string: a number's digits, yes or no for a boolean, the one member of a list (or of its text)."""
    if isinstance(answer, str) and re.fullmatch(r"\[.*\]", answer.strip()):
        try:
            answer = ast.literal_eval(answer.strip())
        except (ValueError, SyntaxError) as error:
            raise UserError(f"{where}: the answer is {answer!r}; expected a word or a phrase") from error
    if isinstance(answer, (list, tuple)) and len(answer) == 1:
        answer = answer[0]
    if isinstance(answer, bool):
        return "yes" if answer else "no"
    text = str(int(answer)) if isinstance(answer, float) and answer.is_integer() else str(answer)
    if not isinstance(answer, (str, int, float)) or text.strip().lower() in ("", "nan", "none", "null"):
        raise UserError(f"{where}: the answer is {answer!r}; expected a word or a phrase")
    return text


def _joined(rows: Rows, path: Path) -> Rows:
    """The questions with their pictures, which are looked up by id and read when they are opened."""
    bases = [path, *path.absolute().parents[:2]]
    found = (find_parquet(base / "testdev_balanced_images", split="testdev") for base in bases)
    files = next(filter(None, found), None)
    if files is None:
        raise nothing_found(f"{TITLE} pictures", path, "testdev_balanced_images/testdev-*.parquet")
    table = PictureTable(read_parquet(files, columns=("id",), required=("id", "image")))
    missing = {row["imageId"] for row in rows.without_pictures() if row["imageId"] not in table}
    if missing:
        raise UserError(
            f"{files[0].parent}: {len(missing)} pictures that questions name are missing, such as {min(missing)}"
        )
    return rows.map(lambda row: row | {"image": table[row["imageId"]]})


def _authors(path: Path, pictures: bool) -> Rows:
    places = (
        [path] if path.is_file() else [path / part / QUESTIONS for part in ("", "data", "questions", "questions1.2")]
    )
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise nothing_found(TITLE, path, f"testdev_balanced_instructions/testdev-*.parquet or {QUESTIONS}")
    questions = read_json(file)
    if not isinstance(questions, Mapping) or not all(isinstance(row, Mapping) for row in questions.values()):
        raise UserError(f"{file}: expected an object of questions by their ids, as {QUESTIONS} is")
    for id_, row in questions.items():
        require(row, COLUMNS[1:], f"{file}, question {id_}")
    images = None
    if pictures and questions:
        first = next(iter(questions.values()))["imageId"]
        bases = [base / inside for base in (path, *file.absolute().parents[:3]) for inside in ("images", "data/images")]
        images = folder_with(bases, f"{first}.jpg", TITLE)

    def read() -> Iterator[Record]:
        for id_, row in questions.items():
            picture = {"image": image_in(images, f"{row['imageId']}.jpg")} if images else {}
            yield {"id": id_, **row, **picture}

    return records(read, len(questions), str(file), pictures)


def record_id(record: Record) -> str:
    """The question's own id."""
    return str(record["id"])


def pictures(record: Record) -> list[Picture]:
    """The question's one picture."""
    return [record["image"]]


def prompt(record: Record, style: str = "llava") -> str:
    """The question as it is, with the style's ending."""
    return f"{record['question']}{styled(STYLES, style)}"


def score(output: str, record: Record, protocol: str = "lmms_eval") -> Score:
    """Score one output; `parsed` is what was compared with the key.

    "lmms_eval": equal in lower case without ASCII punctuation. "official": the lower-cased output without final full
    stops equals the key. "lenient": equal up to articles, number words, punctuation and a sentence around the answer.
    """
    check_protocol(protocol)
    text, answer = output.strip(), _key(record["answer"], f"GQA question {record.get('id')}")
    if protocol == "official":
        said = text.rstrip(".").lower()
        right = said == answer
    elif protocol == "lmms_eval":
        said = _bare(text)
        right = said == _bare(answer)
    else:
        said = _lenient(text, answer)
        right = said == _words(answer)
    return Score(float(right), said, "ok" if text else "empty")


def _bare(text: str) -> str:
    """Lower case without ASCII punctuation, as numpy's strings of a fixed width have it.

    They have no NUL at their end, and lower case never makes them wider.
    """
    return text.rstrip("\0").lower()[: len(text)].translate(_PUNCTUATION).rstrip("\0")


def _lenient(text: str, answer: str) -> str:
    """The key's words when the output gives it as its answer, else the words of the output."""
    key, words = _words(answer), _words(text)
    if words == key:
        return key
    if key in ("yes", "no"):
        return lenient(text) or words
    stated = _STATED.findall(text)
    sentences = [part for part in re.split(r"[.!?\n]+", text) if part.strip()]
    for piece in [stated[-1]] if stated else [*sentences[:1], *sentences[-1:]]:
        said = _words(piece)
        # A piece that weighs or joins several answers gives none of them.
        joins = set(said.split()) & (_HEDGES | {"and"}) - set(key.split())
        if not joins and f" {key} " in f" {said} ":
            return key
    return words


def _words(text: str) -> str:
    """Words in lower case without articles and punctuation, numbers up to ten as digits."""
    found = re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold().replace("&", " and "))
    return " ".join(_NUMBERS.get(word, word) for word in found if word not in _ARTICLES)


def aggregate(records: Sequence[Record], scores: Sequence[Score], protocol: str = "lmms_eval") -> dict[str, float]:
    """Accuracy, also by type of question where the records know theirs (the column `types`).

    `accuracy/open` and `accuracy/binary` are the official script's: open questions are those of the structural type
    "query". The interval is over questions.
    """
    check_protocol(protocol)
    check_parallel(records, scores)
    values = [each.value for each in scores]
    found = {"accuracy": mean(values)}
    types = [record.get("types") for record in records]
    typed = [(value, each) for value, each in zip(values, types, strict=True) if isinstance(each, Mapping)]
    for name in ("structural", "semantic"):
        known = [(value, each[name]) for value, each in typed if each.get(name)]
        if name == "structural":
            kinds = ["open" if kind == "query" else "binary" for _, kind in known]
            found |= by_group([value for value, _ in known], kinds, "accuracy")
        found |= by_group([value for value, _ in known], [kind for _, kind in known], f"accuracy/{name}")
    low, high = mean_interval(values)
    return {**found, **counts(scores), "low": low, "high": high}
