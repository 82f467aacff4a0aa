"""MMMU's parsers: the letter of a multiple-choice output, and everything in an output that may be an open answer.

The authors' parser and that of lmms-eval 0.3, which differ in the forms of a letter alone. Both take time linear in
the output's length.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction

_WITH_COMMAS = re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b")
# Looking back for a digit keeps the time linear: a number that fails at its first digit fails at each of them.
_SCIENTIFIC = re.compile(r"-?(?<!\d)\d+(?:\.\d+)?[eE][+-]?\d+")
_SIMPLE = re.compile(r"-?(?:(?<!\d)\d+\.\d+|\.\d+|(?<!\d)\d+\b)(?![eE][+-]?\d+)(?![,\d])")
_INDICATORS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_TRIVIAL = frozenset(":,.!?;'")


def choice(output: str, options: Mapping[str, str], blank_before: bool) -> str | None:
    """The letter that MMMU's parser finds: the last of those in the first form that occurs, or None.

    The forms: `(X)`, `X ` (with a blank before it, too, in the official parser), `X.` (not in the official one), and
    an option's text in an output of more than five words.
    """
    for mark in ",.!?;:'":
        output = output.strip(mark)
    text = f" {output} "
    forms = ("({})", " {} ") if blank_before else ("({})", "{} ", "{}.")
    for form in forms:
        found = [letter for letter in options if form.format(letter) in text]
        if found:
            # Whatever the form, several bare letters are told apart by where they stand between blanks.
            last = form if form == "({})" else " {} "
            return max(found, key=lambda letter: text.rfind(last.format(letter)))
    if len(text.split()) <= 5:
        return None
    lower = text.lower()
    found = [letter for letter, option in options.items() if option.lower() in lower]
    return max(found, key=lambda letter: lower.rfind(options[letter].lower()), default=None)


def open_answers(output: str) -> list[str | float]:
    """Everything in an output that MMMU's parser takes for an answer: tails of its lines, and the numbers in them."""
    text = output.strip().strip(".").lower()
    lines = text.split("\n")
    tails = []
    for place, line in enumerate(lines):
        indicators = (*_INDICATORS, "=") if place == len(lines) - 1 else _INDICATORS
        found = [line.rpartition(mark)[2].strip() for mark in indicators if mark in line]
        tail = _shortest(found)
        if tail and tail not in _TRIVIAL:
            tails.append(tail)
    tails = tails or [text]
    found = [*tails, *(number for tail in tails for number in numbers(tail))]
    return list(dict.fromkeys(form for one in found for form in normalised(one)))


def _shortest(tails: Sequence[str]) -> str:
    """The shortest tail as the reference finds it: an empty one is replaced by whatever comes behind it."""
    shortest = ""
    for tail in tails:
        if not shortest or len(tail) < len(shortest):
            shortest = tail
    return shortest


def numbers(text: str) -> list[str]:
    """The numbers in a text: those with thousands' commas, in scientific notation, and plain ones."""
    return [*_WITH_COMMAS.findall(text), *_SCIENTIFIC.findall(text), *_SIMPLE.findall(text)]


def normalised(text: str) -> list[str | float]:
    """A number rounded to two places, or lower-case text; a single character comes with a blank on either side."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
        return [f" {text}", f"{text} "] if len(text) == 1 else [text]


def matches(found: str | float, wanted: Sequence[str | float]) -> bool:
    """Equal as numbers, or a key's text anywhere in the text."""
    if isinstance(found, str):
        return any(isinstance(key, str) and key in found for key in wanted)
    return found in wanted


def means(found: str | float, key: str) -> bool:
    """Equal as numbers (fractions too), or the key's text as whole words."""
    number = _number(key)
    if number is not None:
        value = _number(found) if isinstance(found, str) else found
        return value is not None and (value == number or math.isclose(value, round(number, 2), abs_tol=1e-9))
    text = " ".join(key.casefold().split()).strip(" .")
    said = " ".join(str(found).casefold().split())
    return bool(text) and re.search(rf"(?<!\w){re.escape(text)}(?!\w)", said) is not None


def _number(text: str | float) -> float | None:
    text = str(text).strip().strip("$€£%").replace(",", "")
    if len(text) > 100:
        return None
    try:
        return float(Fraction(text)) if "/" in text else float(text)
    except (ValueError, ZeroDivisionError, OverflowError):
        return None
