"""What the multiple-choice benchmarks share: options, keys, what an output without a letter is worth, and figures.

The rules that find the letter are in `letter_rules` (the references') and `letter_lenient` (our own).
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from vargpt_lightning.evaluation.base.benchmark import Record, Score
from vargpt_lightning.utils.errors import UserError

LETTER = "\nAnswer with the option's letter from the given choices directly."


Judge = Callable[[str, Record], str]
"""(output, record) -> the letter that the output means, or anything without a letter when it means none."""


# ---------------------------------------------------------------------------------------------------- columns


def is_missing(value: Any) -> bool:
    """Whether a cell says that there is nothing: null, not a number, empty, or the mirrors' string "nan"."""
    if value is None or (isinstance(value, float) and value != value):
        return True
    return isinstance(value, str) and value.strip() in ("", "nan", "NaN")


def column(record: Record, name: str) -> Any:
    """A record's value. Raises UserError with the columns there are when it has no such column."""
    if name not in record:
        raise UserError(f"record: column {name!r} is missing; there are {', '.join(map(str, record)) or 'none'}")
    return record[name]


def key_letter(record: Record, letters: Iterable[str], name: str = "answer") -> str:
    """The key as an upper-case letter.

    Raises:
        UserError: no key (test splits have none), or one that is not among the letters.
    """
    value = column(record, name)
    if is_missing(value):
        raise UserError(f"record: {name} is {value!r}: a set without keys cannot be scored here")
    letter = str(value).strip().upper()
    if letter not in letters:
        raise UserError(f"record: {name} is {value!r}; expected one of {', '.join(letters)}")
    return letter


def lettered(options: Iterable[Any]) -> dict[str, str]:
    """Options by their letter: the first is A."""
    return {chr(ord("A") + place): str(option) for place, option in enumerate(options)}


def as_list(value: Any) -> list[Any] | None:
    """A list, or the list that a string is the text of; None of anything else. Runs no code."""
    if not isinstance(value, str):
        return list(value) if isinstance(value, (list, tuple)) else None
    try:
        found = ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return found if isinstance(found, list) else None  # "1,000,000" is the text of a tuple, and a number


def listed(options: Mapping[str, str]) -> str:
    """Options as prompts have them, one a line."""
    return "\n".join(f"{letter}. {text}" for letter, text in options.items())


# ------------------------------------------------------------------------------------------ outputs without a letter


def settle(
    letter: str | None,
    output: str,
    record: Record,
    key: str,
    letters: Sequence[str],
    id: str,
    guess: str | None = None,
    seed: int = 0,
    judge: Judge | None = None,
) -> Score:
    """The score of an output out of which a letter was read, or not.

    Args:
        letter: what was read; None asks the judge, then guesses, if these are wanted, and is wrong otherwise.
        output: stripped of blanks.
        record: what a judge is shown beside the output.
        key: the right letter.
        letters: what may be guessed or judged.
        id: the record's; a guess depends on it and the seed alone, never on the order of the records.
        guess: "random", or None for no guesses.
        seed: of the guess.
        judge: asked when no letter was found in an output that has text.
    """
    if guess not in (None, "random"):
        raise UserError(f"guess: {guess!r}; expected 'random' or none")
    if letter is not None:
        return Score(float(letter == key), letter)
    if judge is not None and output:
        found = judged_letter(judge(output, record), letters)
        if found is not None:
            return Score(float(found == key), found, "judged")
    if guess == "random":
        drawn = random.Random(f"{seed}:{id}").choice(list(letters))
        return Score(float(drawn == key), drawn, "guessed")
    return Score(0.0, None, "unparsed" if output else "empty")


def judged_letter(reply: str, letters: Sequence[str]) -> str | None:
    """The one letter that stands alone in a judge's reply."""
    found = {word for word in re.findall(r"[A-Z]+", str(reply)) if word in letters}
    return found.pop() if len(found) == 1 else None


# ------------------------------------------------------------------------------------------------------- aggregates


def check_unique(ids: Sequence[str], what: str = "records") -> None:
    """Raises UserError when ids occur more than once; the first ones are named."""
    seen: set[str] = set()
    twice = [id for id in ids if id in seen or seen.add(id)]  # type: ignore[func-returns-value]
    if twice:
        raise UserError(f"{what}: {len(twice)} ids occur more than once, the first are {', '.join(twice[:5])}")


def __getattr__(name: str) -> Any:
    """Find what was here in earlier versions."""
    from vargpt_lightning.moved import attribute

    return attribute(__name__, name)
