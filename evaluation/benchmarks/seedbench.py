"""SEED-Bench, the questions about pictures: four options, types 1 to 9.

Protocols: `lmms_eval` takes the first character of the output for the letter, `official` is the LLaVA repository's
script, where the output must be the letter and nothing else. The benchmark's paper compares likelihoods of the
options, which no text can tell: numbers made that way ("47.4" of MiniGPT-4) are not comparable with either.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vargpt_lightning.evaluation.base.benchmark import Record, Score, check_protocol, counts, mean_interval
from vargpt_lightning.evaluation.formats.layouts import (
    HubSource,
    Picture,
    Rows,
    find_parquet,
    image_in,
    read_json,
    read_parquet,
    records,
    require,
)
from vargpt_lightning.evaluation.rules import letters
from vargpt_lightning.evaluation.rules.letter_lenient import lenient_letter
from vargpt_lightning.evaluation.rules.letters import Judge, column, is_missing
from vargpt_lightning.evaluation.rules.shared import by_group, check_parallel, mean, unknown_style
from vargpt_lightning.utils.errors import UserError

NAME = "seedbench"
TITLE = "SEED-Bench (image)"
HUB = HubSource("SEED-Bench", split="test")
HEADLINE = "accuracy"
SCALE = 100
MAX_NEW_TOKENS = 128

STYLES = ("llava", "plain")
OPTIONS = ("choice_a", "choice_b", "choice_c", "choice_d")
COLUMNS = ("question_id", "question", *OPTIONS, "answer", "data_type")
TYPES = {
    **dict(enumerate(("scene", "identity", "attributes", "location", "counting", "spatial relation"), 1)),
    **dict(enumerate(("interaction", "reasoning", "text", "action recognition"), 7)),
    **dict(enumerate(("action prediction", "procedure"), 11)),
}
VIDEO_TYPES = range(10, 13)

# ------------------------------------------------------------------------------------------------------------ data


def load(path: str | Path, pictures: bool = True, videos: bool = False) -> Rows:
    """The questions of a mirror's folder, or of `SEED-Bench.json` with `SEED-Bench-image/` beside it.

    Args:
        path: the folder, or the JSON file.
        pictures: False leaves the pictures unread.
        videos: whether the questions about videos are kept; the authors' layout has frames for none of them.

    Raises:
        UserError: neither layout is there, columns are missing, or a question's id occurs twice.
    """
    path = Path(path)
    files = find_parquet(path, None, "test")
    needed = (*COLUMNS, *(("image",) if pictures else ()))
    rows = read_parquet(files, required=needed, pictures=pictures) if files else _read_authors(path, pictures, videos)
    rows = rows.map(_tidied)
    if not videos:
        rows = rows.where(lambda row: row["data_type"] == "image")
    letters.check_unique([record_id(row) for row in rows.without_pictures()], f"{rows.source}: question_id")
    return rows


def _read_authors(path: Path, pictures: bool, videos: bool) -> Rows:
    file = path if path.is_file() and path.suffix == ".json" else path / "SEED-Bench.json"
    if not file.is_file():
        there = ", ".join(sorted(item.name for item in path.glob("*"))[:10]) if path.is_dir() else "no directory"
        raise UserError(
            f"{path}: expected the parquet files of {HUB.repo}'s split test, or SEED-Bench.json; there is "
            f"{there or 'nothing'}"
        )
    data = read_json(file)
    if not isinstance(data, dict) or not isinstance(data.get("questions"), list):
        raise UserError(f"{file}: expected an object with a list 'questions'")
    for number, question in enumerate(data["questions"], 1):
        if not isinstance(question, dict):
            raise UserError(f"{file}, question {number}: got {type(question).__name__}, expected an object")
        needed = (*(name for name in COLUMNS if name != "data_type"), "data_id", "question_type_id")
        require(question, needed, f"{file}, question {number}")
    folder = file.parent / "SEED-Bench-image"
    if pictures and not videos and not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; expected the pictures in it")

    def rows() -> Iterator[Record]:
        for question in data["questions"]:
            row = {"segment": [], **question}
            row.setdefault("data_type", "video" if int(row["question_type_id"]) in VIDEO_TYPES else "image")
            if pictures and row["data_type"] == "image":
                row["image"] = [image_in(folder, str(row["data_id"]))]
            yield row

    return records(rows, len(data["questions"]), str(file), pictures)


def _tidied(row: Record) -> Record:
    row["question_id"] = str(row["question_id"])
    if isinstance(row.get("image"), Picture):
        row["image"] = [row["image"]]
    return row


def record_id(record: Record) -> str:
    """The question's id."""
    return str(column(record, "question_id"))


def pictures(record: Record) -> list[Picture]:
    """The question's picture, or a video's frames."""
    found = column(record, "image")
    found = [found] if isinstance(found, Picture) else list(found or ())
    if not found:
        raise UserError(f"SEED-Bench question {record_id(record)}: there is no picture")
    return found


# ------------------------------------------------------------------------------------------------- prompt, scoring


def prompt(record: Record, style: str = "llava") -> str:
    """The question and its four options; "llava" asks for the letter, "plain" asks nothing."""
    if style not in STYLES:
        raise unknown_style(style, STYLES)
    text = f"{column(record, 'question')}\n{letters.listed(_options(record))}"
    return text + (letters.LETTER if style == "llava" else "")


def _options(record: Record) -> dict[str, str]:
    return letters.lettered(column(record, name) for name in OPTIONS)


def score(
    output: str,
    record: Record,
    protocol: str = "lmms_eval",
    *,
    guess: str | None = None,
    seed: int = 0,
    judge: Judge | None = None,
) -> Score:
    """1 when the letter that the protocol reads is the key, else 0.

    Raises:
        UserError: an unknown protocol, or a record without a key.
    """
    check_protocol(protocol)
    output = output.strip()
    key = letters.key_letter(record, "ABCD")
    if protocol == "lmms_eval":
        read = output[:1].upper()
    elif protocol == "official":
        read = output
    else:
        options = {letter: text for letter, text in _options(record).items() if not is_missing(text)}
        read = lenient_letter(output, options) or ""
    letter = read if len(read) == 1 and read in "ABCD" else None
    return letters.settle(letter, output, record, key, "ABCD", record_id(record), guess, seed, judge)


def aggregate(
    records: Sequence[Record], scores: Sequence[Score], protocol: str = "lmms_eval", allow_partial: bool = False
) -> dict[str, float]:
    """Accuracy on the questions about pictures (`accuracy`, `seed_image`), `seed_video`, `seed_all`, and by type.

    `n` and the other counts are of all questions that were given; the interval is of those about pictures.
    """
    check_protocol(protocol)
    check_parallel(records, scores)
    letters.check_unique([record_id(record) for record in records], "SEED-Bench question_id")
    kinds = [str(column(record, "data_type")) for record in records]
    values = [one.value for one in scores]
    of_kind = {kind: [value for value, own in zip(values, kinds, strict=True) if own == kind] for kind in set(kinds)}
    low, high = mean_interval(of_kind.get("image", []))
    figures = {"accuracy": mean(of_kind.get("image", []))}
    figures |= {f"seed_{kind}": mean(part) for kind, part in sorted(of_kind.items())}
    figures["seed_all"] = mean(values)
    figures |= by_group(values, [_type(record) for record in records], "accuracy")
    figures |= {f"n_{kind}": float(len(part)) for kind, part in sorted(of_kind.items())}
    return figures | counts(scores) | {"low": low, "high": high}


def _type(record: Record) -> Any:
    number = record.get("question_type_id")
    try:
        return TYPES.get(int(str(number)), f"type {number}")
    except ValueError:
        return f"type {number}"
