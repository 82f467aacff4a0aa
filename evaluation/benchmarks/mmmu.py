"""MMMU, validation split: 900 questions of 30 subjects, most of them multiple choice, some open.

Protocols: `lmms_eval` is release 0.3, which made the tables of VARGPT (later releases score every open answer wrong);
`official` is the authors' parser, which wants a blank before a bare letter and knows keys that are lists; `lenient`
reads letters as a reader would and open keys as whole words. The references draw a letter where they find none; here
that is wrong, unless `guess="random"`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vargpt_lightning.evaluation.base.benchmark import Record, Score, check_protocol, counts, mean_interval
from vargpt_lightning.evaluation.formats.layouts import (
    HubSource,
    Picture,
    Rows,
    find_parquet,
    read_json,
    read_parquet,
)
from vargpt_lightning.evaluation.rules import letters, mmmu_answers
from vargpt_lightning.evaluation.rules.letter_lenient import lenient_letter
from vargpt_lightning.evaluation.rules.letters import Judge, column, is_missing
from vargpt_lightning.evaluation.rules.shared import SHORT, by_group, check_parallel, mean, unknown_style
from vargpt_lightning.utils.errors import UserError

NAME = "mmmu"
TITLE = "MMMU (val)"
HUB = HubSource("MMMU", split="validation")
HEADLINE = "accuracy"
SCALE = 100
MAX_NEW_TOKENS = 16  # of release 0.3; release 0.4 and later allow 128

STYLES = ("llava", "plain")
PICTURES = tuple(f"image_{number}" for number in range(1, 8))
COLUMNS = ("id", "question", "options", "answer", "question_type")
ANSWERS = "answer_dict_val.json"
DISCIPLINES = {
    "Art and Design": ("Art", "Art_Theory", "Design", "Music"),
    "Business": ("Accounting", "Economics", "Finance", "Manage", "Marketing"),
    "Science": ("Biology", "Chemistry", "Geography", "Math", "Physics"),
    "Health and Medicine": (
        *("Basic_Medical_Science", "Clinical_Medicine", "Diagnostics_and_Laboratory_Medicine"),
        *("Pharmacy", "Public_Health"),
    ),
    "Humanities and Social Science": ("History", "Literature", "Sociology", "Psychology"),
    "Tech and Engineering": (
        *("Agriculture", "Architecture_and_Engineering", "Computer_Science", "Electronics"),
        *("Energy_and_Power", "Materials", "Mechanical_Engineering"),
    ),
}
SUBJECTS = {subject: discipline for discipline, subjects in DISCIPLINES.items() for subject in subjects}

# ------------------------------------------------------------------------------------------------------------ data


def load(path: str | Path, pictures: bool = True) -> Rows:
    """The questions of the merged mirror, of the authors' folder with one folder a subject, or of parquet files.

    Keys in `answer_dict_val.json`, when it lies beside them, go before those of the rows. Options and keys that are
    lists are put into the mirror's form, a list written as a string.

    Raises:
        UserError: none of these layouts, subjects or columns are missing, or an id occurs twice.
    """
    path = Path(path)
    files = find_parquet(path, None, "validation") or _by_subject(path)
    keys = _answers(path if path.is_dir() else path.parent)
    rows = read_parquet(files, picture_columns=PICTURES, required=COLUMNS, pictures=pictures)
    rows = rows.map(lambda row: _tidied(row, keys))
    letters.check_unique([record_id(row) for row in rows.without_pictures()], f"{rows.source}: id")
    return rows


def _by_subject(path: Path) -> list[Path]:
    found = {subject: find_parquet(path / subject, None, "validation") for subject in sorted(SUBJECTS)}
    missing = [subject for subject, files in found.items() if not files]
    if len(missing) == len(SUBJECTS):
        there = ", ".join(sorted(item.name for item in path.glob("*"))[:10]) if path.is_dir() else "no directory"
        raise UserError(
            f"{path}: expected the parquet files of {HUB.repo}'s split validation, or the folders of its 30 subjects "
            f"with one each; there is {there or 'nothing'}"
        )
    if missing:
        raise UserError(f"{path}: {len(missing)} of the {len(SUBJECTS)} subjects missing: {', '.join(missing)}")
    return [file for files in found.values() for file in files]


def _answers(folder: Path) -> dict[str, Any]:
    file = folder / ANSWERS
    if not file.is_file():
        return {}
    data = read_json(file)
    if not isinstance(data, dict) or not all(isinstance(one, dict) and "ground_truth" in one for one in data.values()):
        raise UserError(f"{file}: expected an object of ids, each with a 'ground_truth'")
    return {id: one["ground_truth"] for id, one in data.items()}


def _tidied(row: Record, keys: dict[str, Any]) -> Record:
    row["answer"] = _as_text(keys.get(str(row["id"]), row["answer"]))
    row["options"] = "[]" if is_missing(row["options"]) else _as_text(row["options"])
    return row


def _as_text(value: Any) -> Any:
    if is_missing(value):
        return value
    return repr([str(one) for one in value]) if isinstance(value, (list, tuple)) else str(value)


def record_id(record: Record) -> str:
    """The question's id, `validation_<Subject>_<number>`."""
    return str(column(record, "id"))


def subject(record: Record) -> str:
    """The subject out of the id: what stands between its first and its last underscore."""
    parts = record_id(record).split("_")
    if len(parts) < 3 or not parts[-1].isdecimal():
        raise UserError(f"record: id is {record_id(record)!r}; expected <split>_<Subject>_<number>")
    return "_".join(parts[1:-1])


def pictures(record: Record) -> list[Picture]:
    """The pictures whose tags occur in the question or its options, by their number."""
    found = []
    for number in sorted({int(one) for one in re.findall(r"<image (\d+)>", prompt(record))}):
        picture = record.get(f"image_{number}")
        if not isinstance(picture, Picture):
            raise UserError(f"MMMU {record_id(record)}: <image {number}> is named, but there is no such picture")
        found.append(picture)
    return found


# ---------------------------------------------------------------------------------------------------------- prompt


def prompt(record: Record, style: str = "llava") -> str:
    """The question, and its options if it has any; "llava" asks for a letter or a short answer, "plain" does not.

    Tags such as `<image 1>` stay in the text.
    """
    if style not in STYLES:
        raise unknown_style(style, STYLES)
    text, tail = str(column(record, "question")), SHORT
    if _is_choice(record):
        text, tail = f"{text}\n{letters.listed(_options(record))}", letters.LETTER
    return text + (f"\n{tail}" if style == "llava" else "")


def _is_choice(record: Record) -> bool:
    return bool(column(record, "question_type") == "multiple-choice")


def _options(record: Record) -> dict[str, str]:
    """The options by letter. Raises UserError when they are no list."""
    value = column(record, "options")
    found = [] if is_missing(value) else letters.as_list(value)
    if found is None:
        raise UserError(f"record {record_id(record)}: options is {value!r:.200}; expected a list written as a string")
    return letters.lettered(found)


# --------------------------------------------------------------------------------------------------------- scoring


def score(
    output: str,
    record: Record,
    protocol: str = "lmms_eval",
    *,
    guess: str | None = None,
    seed: int = 42,
    judge: Judge | None = None,
) -> Score:
    """1 when the letter, or the open answer, is right by the protocol's rules, else 0.

    Letters alone are guessed and judged; `parsed` of an open answer holds all that was taken for it.

    Raises:
        UserError: an unknown protocol, or a record without key or options.
    """
    check_protocol(protocol)
    output = output.strip()
    keys = _keys(record, parse=protocol != "lmms_eval")
    if not _is_choice(record):
        return _open_score(output, keys, protocol)
    options = _options(record)
    if not options:
        raise UserError(f"record {record_id(record)}: a multiple-choice question without options")
    if protocol == "lenient":
        letter = lenient_letter(output, options)
    else:
        letter = mmmu_answers.choice(output, options, blank_before=protocol == "official")
    key = letter if letter in keys else keys[0]
    return letters.settle(letter, output, record, key, [*options], record_id(record), guess, seed, judge)


def _keys(record: Record, parse: bool) -> list[str]:
    """The keys; a list written as a string is one where it is parsed, and one key, itself, where it is not."""
    value = column(record, "answer")
    found = letters.as_list(value) if parse or not isinstance(value, str) else None
    keys = [str(key) for key in ([value] if found is None else found) if not is_missing(key)]
    if not keys:
        raise UserError(f"record {record_id(record)}: answer is {value!r}: a set without keys cannot be scored here")
    return keys


_SHORT = 10  # words; a longer output is not an answer as a whole


def _open_score(output: str, keys: Sequence[str], protocol: str) -> Score:
    wanted = [form for key in keys for form in mmmu_answers.normalised(key)]
    if not output:
        return Score(0.0, None, "empty")
    found = mmmu_answers.open_answers(output)
    right = any(mmmu_answers.matches(one, wanted) for one in found)
    if protocol == "lenient":
        found += [output] if len(output.split()) <= _SHORT else []  # "Point P is the answer": no tail holds the answer
        right = any(mmmu_answers.means(one, key) for one in found for key in keys)
    return Score(float(right), tuple(str(one)[:200] for one in found[:20]))


# ------------------------------------------------------------------------------------------------------- aggregate


def aggregate(
    records: Sequence[Record], scores: Sequence[Score], protocol: str = "lmms_eval", allow_partial: bool = False
) -> dict[str, float]:
    """Accuracy over all questions, each discipline and each subject (rounded to five places, as the references do),
    over multiple-choice and open questions, the counts, and the interval over questions.
    """
    check_protocol(protocol)
    check_parallel(records, scores)
    letters.check_unique([record_id(record) for record in records], "MMMU id")
    values = [one.value for one in scores]
    subjects = [subject(record) for record in records]
    unknown = sorted(set(subjects) - SUBJECTS.keys())
    if unknown:
        raise UserError(f"MMMU: subject {unknown[0]!r} is none of the {len(SUBJECTS)} there are")
    kinds = ["multiple-choice" if _is_choice(record) else "open" for record in records]
    figures = {"accuracy": mean(values)}
    figures |= by_group(values, [SUBJECTS[one] for one in subjects], "accuracy")
    figures |= by_group(values, subjects, "accuracy/subject")
    figures |= by_group(values, kinds, "accuracy/type")
    figures = {name: round(figure, 5) for name, figure in figures.items()}
    low, high = mean_interval(values)
    return figures | counts(scores) | {"low": low, "high": high}
