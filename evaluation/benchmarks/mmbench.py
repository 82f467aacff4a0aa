"""MMBench, development split, English: rotated multiple choice, where a question counts when every rotation is right.

Rows whose `index` differs by a multiple of a million are rotations of one question. Protocols: `lmms_eval` is the
path without a judge (letter, option text, then a ranking of places), `official` is exact matching as OpenCompass's
toolkit does it, `lenient` is a reader's rules. In all three a judge, when one is given, sees what had no letter.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from vargpt_lightning.evaluation.base.benchmark import Record, Score, check_protocol, counts, mean_interval
from vargpt_lightning.evaluation.formats.layouts import (
    HubSource,
    Picture,
    Rows,
    find_parquet,
    read_parquet,
    read_tsv,
    require,
)
from vargpt_lightning.evaluation.rules import letter_rules, letters
from vargpt_lightning.evaluation.rules.letter_lenient import lenient_letter
from vargpt_lightning.evaluation.rules.letters import Judge, column, is_missing
from vargpt_lightning.evaluation.rules.shared import by_group, check_parallel, mean, unknown_style
from vargpt_lightning.utils.errors import UserError

NAME = "mmbench"
TITLE = "MMBench-dev (EN)"
HUB = HubSource("MMBench", config="en", split="dev")
HEADLINE = "accuracy"
SCALE = 100
MAX_NEW_TOKENS = 1024

TURN = 1_000_000  # what separates the indices of two rotations
STYLES = ("llava", "llava_script", "vlmevalkit", "plain")
COLUMNS = ("index", "question", "answer", "A", "B", "category")
LEGACY = {"l2-category": "L2-category"}

# ------------------------------------------------------------------------------------------------------------ data


def load(path: str | Path, pictures: bool = True) -> Rows:
    """The rows of a mirror's folder, or of a TSV file of the authors (or a folder with one).

    Values are put into the mirror's form: `index` int, missing hints and options "nan", `L2-category` so written.

    Raises:
        UserError: neither layout is there, columns are missing, an index is no number or occurs twice, or
            `pictures=False` (scoring) and there are no keys.
    """
    path = Path(path)
    files = find_parquet(path, HUB.config if isinstance(HUB.config, str) else None, "dev")
    needed = (*COLUMNS, *(("image",) if pictures else ()))
    rows = read_parquet(files, required=needed, pictures=pictures) if files else _read_tsv(path, pictures)
    rows = rows.map(_tidied)
    ids, keys = [], 0
    for row in rows.without_pictures():
        ids.append(record_id(row))
        keys += not is_missing(row["answer"])
    letters.check_unique(ids, f"{rows.source}: index")
    if ids and not keys and not pictures:
        raise UserError(f"{rows.source}: there are no keys; a test split is scored by its authors' server")
    return rows


def _read_tsv(path: Path, pictures: bool) -> Rows:
    found = [path] if path.is_file() and path.suffix == ".tsv" else sorted(path.glob("*.tsv"))
    if len(found) > 1:  # other languages and splits often lie beside it
        names = {file: file.stem.lower() for file in found}
        found = [file for file in found if "dev" in names[file] and not {"cn", "ru", "cc"} & set(_words(names[file]))]
    if len(found) != 1:
        there = ", ".join(sorted(file.name for file in path.glob("*"))[:10]) if path.is_dir() else "no directory"
        raise UserError(
            f"{path}: expected the parquet files of {HUB.repo}'s split en/dev, or one TSV file of the English "
            f"development split; there is {there or 'nothing'}"
        )
    rows = read_tsv(found[0], picture_columns=("image",), required=COLUMNS, pictures=pictures)
    if pictures:
        require(rows, ("image",), found[0])
    return rows


def _words(name: str) -> list[str]:
    return name.replace("-", "_").split("_")


def _tidied(row: Record) -> Record:
    row = {LEGACY.get(name, name): value for name, value in row.items()}
    row["index"] = _index(row)
    for name in ("hint", *"ABCD"):
        row[name] = "nan" if is_missing(row.get(name)) else row[name]
    return row


def _index(record: Record) -> int:
    value = column(record, "index")
    try:
        index = int(str(value))
    except ValueError:
        index = -1
    if index < 0:
        raise UserError(f"record: index is {value!r}; expected a whole number")
    return index


def record_id(record: Record) -> str:
    """The row's index, which is unique among all rotations."""
    return str(_index(record))


def group(record: Record) -> str:
    """The question that the row is a rotation of: the index of its first rotation."""
    return str(_index(record) % TURN)


def pictures(record: Record) -> list[Picture]:
    """The question's picture."""
    picture = column(record, "image")
    if not isinstance(picture, Picture):
        raise UserError(f"MMBench index {record_id(record)}: there is no picture")
    return [picture]


# ---------------------------------------------------------------------------------------------------------- prompt


def prompt(record: Record, style: str = "llava") -> str:
    """The question as the references ask it.

    Styles: "llava" is lmms-eval's, "llava_script" the LLaVA repository's own, "vlmevalkit" OpenCompass's, "plain"
    lmms-eval's without the instruction.
    """
    options = _shown(record)
    hint = None if is_missing(record.get("hint")) else record["hint"]
    question = column(record, "question")
    if style in ("llava", "plain"):
        text = f"There are several options:\n{letters.listed(options)}".rstrip("\n")
        text = f"{question} {text}" if hint is None else f"{hint} {question} {text}"
        return text + (f"\n{letters.LETTER}" if style == "llava" else "")
    if style == "llava_script":
        question = question if hint is None else f"{hint}\n{question}"
        return f"{question}\n{letters.listed(options)}{letters.LETTER}"
    if style == "vlmevalkit":
        text = "" if hint is None else f"Hint: {hint}\n"
        text += f"Question: {question}\n"
        if options:
            text += f"Options:\n{letters.listed(options)}\nPlease select the correct answer from the options above. \n"
        return text.rstrip()
    raise unknown_style(style, STYLES)


def _shown(record: Record) -> dict[str, str]:
    """The options that the question has; A to E."""
    return {letter: str(record[letter]) for letter in "ABCDE" if not is_missing(record.get(letter))}


# --------------------------------------------------------------------------------------------------------- scoring


def score(
    output: str,
    record: Record,
    protocol: str = "lmms_eval",
    *,
    guess: str | None = None,
    seed: int = 2680,
    judge: Judge | None = None,
) -> Score:
    """What the output is worth for this row alone; `aggregate` puts rotations together.

    Raises:
        UserError: an unknown protocol, or a record without key, options or question.
    """
    check_protocol(protocol)
    output = output.strip()
    options = _shown(record)
    key = letters.key_letter(record, ascii_uppercase)
    guesses = [*options]
    if protocol == "lmms_eval":
        letter = _lmms_letter(output, record, judge is not None)
        guesses = [*"ABCDE"]  # the reference draws E, "none of these", too
    elif protocol == "official":
        letter = letter_rules.opencompass_letter(output, options)
        guesses.append(letter_rules.REFUSED)
        if letter == letter_rules.REFUSED:
            return Score(0.0, None, "unparsed")
    else:
        letter = lenient_letter(output, options)
    return letters.settle(letter, output, record, key, guesses, record_id(record), guess, seed, judge)


def _lmms_letter(output: str, record: Record, judged: bool) -> str | None:
    """lmms-eval's letter. Its ranking of places stands in for the judge, so that a judge leaves no row to it.

    The reference takes the mirror's "nan" in place of a missing option for an option's text: "banana" then contains
    three options. The tables were made so, and so it is done here.
    """
    texts = {letter: record.get(letter) for letter in "ABCD"}
    candidates = {letter: str(text) for letter, text in texts.items() if text == "nan" or not is_missing(text)}
    letter = letter_rules.bare_letter(output) or letter_rules.contained_option(output, candidates)
    return letter if letter or judged else letter_rules.ranked_letter(output, [*candidates])


# ------------------------------------------------------------------------------------------------------- aggregate


def aggregate(
    records: Sequence[Record], scores: Sequence[Score], protocol: str = "lmms_eval", allow_partial: bool = False
) -> dict[str, float]:
    """Circular accuracy (`accuracy` and `circular`), `vanilla`, by `category` and by `L2-category`, and the counts.

    A question is right when all its rotations are; `vanilla` looks at the unrotated rows alone. The interval is over
    questions.

    Raises:
        UserError: rotations that occur twice, or groups that lack some while `allow_partial` is False; a question
            has as many rotations as options.
    """
    check_protocol(protocol)
    check_parallel(records, scores)
    letters.check_unique([record_id(record) for record in records], "MMBench index")
    groups: dict[int, list[int]] = {}
    for place, record in enumerate(records):
        groups.setdefault(_index(record) % TURN, []).append(place)
    partial = [group for group, places in groups.items() if not _complete([records[place] for place in places])]
    if partial and not allow_partial:
        raise UserError(
            f"MMBench: {len(partial)} of {len(groups)} questions lack some of their rotations, the first is index "
            f"{partial[0]} with {len(groups[partial[0]])}; score all rows, or --allow-partial"
        )
    mains = [records[min(places, key=lambda place: _index(records[place]))] for places in groups.values()]
    hits = [float(all(scores[place].value == 1 for place in places)) for places in groups.values()]
    plain = [one.value for record, one in zip(records, scores, strict=True) if _index(record) < TURN]
    low, high = mean_interval(hits)
    figures = {"accuracy": mean(hits), "circular": mean(hits), "vanilla": mean(plain)}
    for name in ("category", "L2-category"):
        figures |= by_group(hits, [_named(record, name) for record in mains], name)
    figures |= {"questions": float(len(groups)), **counts(scores), "low": low, "high": high}
    return figures | ({"partial": 1.0} if partial else {})


def _named(record: Record, name: str) -> Any:
    value = record.get(name, record.get(name.lower()))
    return "uncategorized" if is_missing(value) else value


def _complete(rotations: Sequence[Record]) -> bool:
    turns = {_index(record) // TURN for record in rotations}
    return turns >= set(range(max(len(_shown(rotations[0])), 1)))
