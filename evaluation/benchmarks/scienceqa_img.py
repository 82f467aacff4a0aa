"""ScienceQA, the test questions with a picture: two to five options.

Protocols: `lmms_eval` takes a lone letter of either case, or a capital letter with a period, at the output's start;
`lmms_eval_0.3` the lone letter only, which is what made the tables of VARGPT; `official` is the LLaVA repository's
script; `lenient` is a reader's rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vargpt_lightning.evaluation.base.benchmark import (
    EARLIER,
    PROTOCOLS,
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

NAME = "scienceqa_img"
TITLE = "ScienceQA-IMG"
HUB = HubSource("ScienceQA", config="ScienceQA-IMG", split="test")
HEADLINE = "accuracy"
SCALE = 100
MAX_NEW_TOKENS = 16

STYLES = ("llava", "qwen", "plain")
KNOWN = (*PROTOCOLS, EARLIER)
COLUMNS = ("question", "choices", "answer", "hint")
SPLIT = "test"

# ------------------------------------------------------------------------------------------------------------ data


def load(path: str | Path, pictures: bool = True) -> Rows:
    """The questions with a picture, of a mirror's folder, or of `problems.json` with `pid_splits.json` and pictures.

    The mirror has no ids: its rows are numbered from 0 under `id`; the authors' ids are kept. Keys become ints.

    Raises:
        UserError: neither layout is there, columns are missing, or an id occurs twice.
    """
    path = Path(path)
    files = find_parquet(path, str(HUB.config), SPLIT)
    rows = _read_mirror(files, pictures) if files else _read_authors(path, pictures)
    letters.check_unique([record_id(row) for row in rows.without_pictures()], f"{rows.source}: id")
    return rows


def _read_mirror(files: Sequence[Path], pictures: bool) -> Rows:
    rows = _numbered(read_parquet(files, required=COLUMNS)).map(_tidied)
    if files[0].parent.name != HUB.config and "image" in rows.columns:  # the full set has questions without a picture
        there = [place for place, row in enumerate(rows) if row["image"] is not None]
        left_out = len(rows) - len(there)
        rows = rows.take(there)
        if left_out:
            rows.skipped.append(f"{left_out} questions without a picture")
    if pictures:
        require(rows, ("image",), files[0])
    return rows if pictures else rows.without_pictures()


def _numbered(rows: Rows) -> Rows:
    """The rows with their number under `id`, where they have none of their own."""

    def read(wanted: Sequence[int] | None, pictures: bool) -> Iterator[Record]:
        chosen = rows if wanted is None else rows.take(wanted)
        places = range(len(rows)) if wanted is None else wanted
        for place, row in zip(places, chosen if pictures else chosen.without_pictures(), strict=True):
            yield {"id": str(place), **row}

    return Rows(read, len(rows), rows.source, tuple(dict.fromkeys(("id", *rows.columns))), rows.pictures)


def _read_authors(path: Path, pictures: bool) -> Rows:
    folder = path if path.is_dir() else path.parent
    files = folder / "problems.json", folder / "pid_splits.json"
    if not all(file.is_file() for file in files):
        there = ", ".join(sorted(item.name for item in folder.glob("*"))[:10]) if folder.is_dir() else "no directory"
        raise UserError(
            f"{path}: expected the parquet files of {HUB.repo}'s {HUB.config}/{SPLIT}, or problems.json and "
            f"pid_splits.json; there is {there or 'nothing'}"
        )
    problems, splits = (read_json(file) for file in files)
    if not isinstance(problems, dict) or not isinstance(splits, dict) or not isinstance(splits.get(SPLIT), list):
        raise UserError(f"{folder}: expected problems.json to be an object, and a list {SPLIT!r} in pid_splits.json")
    ids = [str(id) for id in splits[SPLIT]]
    unknown = [id for id in ids if not isinstance(problems.get(id), dict)]
    if unknown:
        raise UserError(f"{files[1]}: {len(unknown)} ids are not in problems.json, the first is {unknown[0]}")
    for id in ids:
        require(problems[id], (*COLUMNS, "image"), f"{files[0]}, problem {id}")
    chosen = [id for id in ids if not is_missing(problems[id]["image"])]
    place = folder / "images" / SPLIT if (folder / "images" / SPLIT).is_dir() else folder / SPLIT

    def rows() -> Iterator[Record]:
        for id in chosen:
            image = {"image": image_in(place, f"{id}/{problems[id]['image']}")}
            yield _tidied({**problems[id], "id": id, **image})

    found = records(rows, len(chosen), str(files[0]))
    if len(chosen) < len(ids):
        found.skipped.append(f"{len(ids) - len(chosen)} questions without a picture")
    return found if pictures else found.without_pictures()


def _tidied(row: Record) -> Record:
    row["hint"] = "" if is_missing(row["hint"]) else row["hint"]
    row["choices"] = list(_options(row).values())
    row["answer"] = list(_options(row)).index(_key(row)) if not is_missing(row["answer"]) else None
    return row


def record_id(record: Record) -> str:
    """The question's id, which `load` gives to records of the mirror."""
    return str(column(record, "id"))


def pictures(record: Record) -> list[Picture]:
    """The question's picture."""
    picture = column(record, "image")
    if not isinstance(picture, Picture):
        raise UserError(f"ScienceQA {record_id(record)}: there is no picture")
    return [picture]


# ---------------------------------------------------------------------------------------------------------- prompt


def prompt(record: Record, style: str = "llava") -> str:
    """Context, question and options; "llava" asks for the letter, "qwen" ends with "Answer:", "plain" asks nothing."""
    hint = "" if is_missing(record.get("hint")) else record["hint"]
    question, options = column(record, "question"), letters.listed(_options(record))
    if style == "qwen":
        return f"Context: {hint or 'N/A'}\nQuestion: {question}\nOptions: {options}\nAnswer:"
    if style not in STYLES:
        raise unknown_style(style, STYLES)
    context = f"Context: {hint}\n" if hint else ""
    return f"{context}{question}\n{options}" + (letters.LETTER if style == "llava" else "")


def _options(record: Record) -> dict[str, str]:
    """The options by letter; a list written as a string is read as one."""
    value = column(record, "choices")
    found = letters.as_list(value)
    if not found:
        raise UserError(f"record: choices is {value!r:.200}; expected a list of options")
    return letters.lettered(found)


def _key(record: Record) -> str:
    """The key's letter; the mirror has its place from 0, as a number or its digits."""
    value, options = column(record, "answer"), [*_options(record)]
    if is_missing(value):
        raise UserError(f"record: answer is {value!r}: a set without keys cannot be scored here")
    text = str(value).strip()
    place = int(float(text)) if re.fullmatch(r"\d{1,4}(?:\.0)?", text) else -1
    if 0 <= place < len(options):
        return options[place]
    return letters.key_letter(record, options)


# --------------------------------------------------------------------------------------------------------- scoring

_SAID = re.compile(r"The answer is ([A-Z]).")  # the last dot is any character but a line's end, as in the script


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
        UserError: an unknown protocol, or a record without key or options.
    """
    check_protocol(protocol, KNOWN)
    output = output.strip()
    options, key = _options(record), _key(record)
    if protocol == "lenient":
        letter = lenient_letter(output, options)
    elif protocol == "official":
        letter = _script_letter(output)
    else:
        letter = _lmms_letter(output, [*options], dotted=protocol == "lmms_eval")
    letter = letter if letter in options else None
    id = str(record.get("id", column(record, "question")))
    return letters.settle(letter, output, record, key, [*options], id, guess, seed, judge)


def _lmms_letter(output: str, known: Sequence[str], dotted: bool) -> str | None:
    for letter in known:
        if output.lower() == letter.lower():
            return letter
    return output[0] if dotted and output[:1].isupper() and output[1:2] == "." else None


def _script_letter(output: str) -> str | None:
    if output in list("ABCDE"):
        return output
    if output[:1] in list("ABCDE") and output[1:3] == ". ":
        return output[0]
    said = _SAID.findall(output)
    return said[0] if len(said) == 1 else None


def aggregate(
    records: Sequence[Record], scores: Sequence[Score], protocol: str = "lmms_eval", allow_partial: bool = False
) -> dict[str, float]:
    """Accuracy, by subject, by grades (1-6, 7-12) and by whether there is a context; counts, interval over questions.

    Raises:
        UserError: other numbers of records and scores, or ids that occur twice.
    """
    check_protocol(protocol, KNOWN)
    check_parallel(records, scores)
    letters.check_unique([str(record["id"]) for record in records if "id" in record], "ScienceQA id")
    values = [one.value for one in scores]
    figures = {"accuracy": mean(values)}
    figures |= by_group(values, [record.get("subject") or "unknown" for record in records], "accuracy")
    figures |= by_group(values, [_grades(record) for record in records], "grades")
    contexts = ["without" if is_missing(record.get("hint")) else "with" for record in records]
    figures |= by_group(values, contexts, "context")
    low, high = mean_interval(values)
    return figures | counts(scores) | {"low": low, "high": high}


def _grades(record: Record) -> Any:
    digits = re.search(r"\d{1,2}", str(record.get("grade")))
    if digits is None:
        return "unknown"
    return "1-6" if int(digits[0]) <= 6 else "7-12"
