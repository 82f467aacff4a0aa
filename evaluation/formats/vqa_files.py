"""What the benchmarks scored by VQA accuracy share beside the score: prompts, and reading of their data.

A column of another type than the mirror documents (a list written as a string, an id that is a text, a number as an
answer) is put right as the row is read; what cannot be put right is a UserError that names the question.
"""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vargpt_lightning.evaluation.base.benchmark import Record
from vargpt_lightning.evaluation.formats.layouts import Picture, Rows, find_parquet, read_parquet
from vargpt_lightning.utils.errors import UserError

WITHOUT_ANSWERS = ("testdev", "test-dev", "test")
_NOTHING = ("", "nan", "none", "null")


@dataclass(frozen=True)
class Columns:
    """What a benchmark's rows look like: needed and foreign columns, and the types of ids and answers."""

    needed: tuple[str, ...]
    of_answers: tuple[str, ...]  # needed too, but test splits do without
    foreign: tuple[str, ...]  # columns that other benchmarks have
    id_type: type
    answers_as_dicts: bool = False


def question(record: Record) -> str:
    """The record's question. Raises UserError when there is none."""
    text = record.get("question")
    if not isinstance(text, str):
        raise UserError(f"question {record.get('question_id')!r}: question: {text!r}; expected text")
    return text


def record_id(record: Record) -> str:
    """The question's id, which is unique."""
    return str(record["question_id"])


def pictures(record: Record) -> list[Picture]:
    """The question's one picture. Raises UserError when it has none."""
    picture = record.get("image")
    if not isinstance(picture, Picture):
        raise UserError(f"question {record.get('question_id')!r} has no picture; it was loaded without, or is null")
    return [picture]


def mirror_rows(path: Path, splits: Sequence[str], columns: Columns, pictures: bool) -> Rows | None:
    """Rows of the public mirror's parquet files: of the first split that is there, or None where there are none.

    Raises:
        UserError: missing columns, columns of another benchmark, an id that occurs twice.
    """
    found = ((split, find_parquet(path, split=split)) for split in splits)
    split, files = next(((split, files) for split, files in found if files), ("", []))
    if not files:
        return None
    unanswered = split in WITHOUT_ANSWERS or files[0].name.startswith(WITHOUT_ANSWERS)
    needed = columns.needed + (() if unanswered else columns.of_answers)
    rows = read_parquet(files, required=(*needed, *(("image",) if pictures else ())), pictures=pictures)
    foreign = [name for name in columns.foreign if name in rows.columns]
    if foreign:
        raise UserError(
            f"{rows.source}: {', '.join(foreign)} are columns of another benchmark; is this the right data?"
        )
    refuse_repeated((row["question_id"] for row in read_parquet(files, ["question_id"], ())), rows.source)
    return rows.map(lambda row: put_right(row, columns, rows.source))


def listed_rows(
    make: Callable[[int], Record], picture: Callable[[int], Picture], length: int, source: str, pictures: bool
) -> Rows:
    """Rows made one at a time from what is in memory already, each with its picture (a file that is opened late)."""

    def read(indices: Sequence[int] | None, with_pictures: bool) -> Iterator[Record]:
        for index in range(length) if indices is None else indices:
            yield {**make(index), "image": picture(index)} if with_pictures else make(index)

    return Rows(read, length, source, tuple(make(0)) if length else (), pictures)


def refuse_repeated(ids: Iterable[Any], source: str) -> None:
    """Raises UserError when an id occurs more than once."""
    twice = [id_ for id_, times in Counter(map(str, ids)).items() if times > 1]
    if twice:
        raise UserError(f"{source}: {len(twice)} values of question_id are repeated, such as {twice[0]}")


def nothing_found(path: Path, title: str, looked_for: Sequence[str]) -> UserError:
    """The error of a path with none of a benchmark's layouts: what was looked for, and what is there."""
    if not path.exists():
        return UserError(f"{path}: there is no such file or directory; expected {title}")
    there = sorted(each.name for each in path.iterdir())[:12] if path.is_dir() else [path.name]
    return UserError(
        f"{path} is not {title}: no {', no '.join(looked_for)}; there are {', '.join(there) or 'no files'}"
    )


def put_right(row: Record, columns: Columns, source: str) -> Record:
    """The row with its id, question and answers in their documented types; changes and returns it."""
    if type(row["question_id"]) is not columns.id_type:
        row["question_id"] = _id(row["question_id"], columns.id_type, source)
    where = f"{source}, question {row['question_id']!r}"
    if not isinstance(row["question"], str):
        raise UserError(f"{where}: question: {row['question']!r}; expected text")
    if "answers" in row and not _documented(row["answers"], columns.answers_as_dicts):
        row["answers"] = _answers(row["answers"], columns.answers_as_dicts, where)
    return row


def _id(value: Any, id_type: type, source: str) -> Any:
    text = "" if value is None else str(value).strip()
    if id_type is int and re.fullmatch(r"-?\d+(\.0)?", text):
        return int(text.partition(".")[0])
    if id_type is str and text:
        return text
    raise UserError(f"{source}: question_id: {value!r}; expected {'a whole number' if id_type is int else 'text'}")


def _documented(answers: Any, as_dicts: bool) -> bool:
    if type(answers) is not list:
        return False
    if as_dicts:
        return all(type(answer) is dict and type(answer.get("answer")) is str for answer in answers)
    return all(type(answer) is str for answer in answers)


def _answers(value: Any, as_dicts: bool, where: str) -> list[Any] | None:
    """Answers of any type that occurs as the list that is documented; None where there are none."""
    if isinstance(value, str):
        value = _written_list(value, where)
    if value is None or (isinstance(value, float) and value != value):
        return None
    if hasattr(value, "tolist"):
        value = value.tolist()
    if not isinstance(value, (list, tuple)):
        raise UserError(f"{where}: answers: {value!r}; expected a list")
    return [_answer(each, place, as_dicts, where) for place, each in enumerate(value, 1)]


def _answer(value: Any, place: int, as_dicts: bool, where: str) -> Any:
    fields = dict(value) if isinstance(value, Mapping) else {"answer": value}
    text = fields.get("answer")
    if text is None or not isinstance(text, (str, int, float)) or text != text:
        raise UserError(f"{where}: answer {place}: {text!r}; expected text")
    if not as_dicts:
        return str(text)
    return {"answer_confidence": "", "answer_id": place, **fields, "answer": str(text)}


def _written_list(text: str, where: str) -> Any:
    """The list that a text writes, as Python or as JSON; None of "nan" and the like."""
    if text.strip().lower() in _NOTHING:
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(found, (list, tuple)):
            return found
    raise UserError(f"{where}: answers: {text[:60]!r}; expected a list, or a list written as text")
