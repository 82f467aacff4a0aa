"""The references' rules for the letter that an output means, as functions of the output and the options alone.

All take time linear in the output's length.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

# ------------------------------------------------------------------------------------------------ rules: OpenCompass

_DRESSINGS = ("{}.", "{},", "{}:", "{})", "{}).", "({})", "({}).", ":{}", ":{},", ":{}.", ":{})", ":{}).")
_FAILED = "Failed to obtain answer via API"  # what the tools write in place of an output


def bare_letter(output: str, letters: Sequence[str] = "ABCDE") -> str | None:
    """The letter that is a word of its own, or the only one in one of twelve dressings (lmms-eval, MMBench).

    A bare A among more than three words may be the article and does not count.
    """
    if _FAILED in output:
        return None
    split = output.split()
    words = set(split)
    bare = [letter for letter in letters if letter in words]
    if len(bare) == 1 and not (bare[0] == "A" and len(split) > 3):
        return bare[0]
    for dressing in _DRESSINGS:
        dressed = [letter for letter in letters if dressing.format(letter) in words]
        if len(dressed) == 1:
            return dressed[0]
    return None


def contained_option(output: str, options: Mapping[str, str]) -> str | None:
    """The letter of the one option whose text occurs in the output, whatever the case."""
    text = output.lower()
    found = [letter for letter, option in options.items() if option.lower() in text]
    return found[0] if len(found) == 1 else None


_STRIPPED = str.maketrans({mark: " " for mark in ".()[],:;!*#{}"})
_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_SAID = re.compile(r"answer\s+is\s+\**([ABCD])", re.IGNORECASE)
REFUSED = "Z"


def opencompass_letter(output: str, options: Mapping[str, str]) -> str | None:
    """The letter by exact matching as in VLMEvalKit; "Z" is a refusal.

    The only bare letter counts when it is among the last four words, then "answer is X", then an option's text in an
    output not longer than twice all options together.
    """
    if _FAILED not in output:
        if any(refusal in output for refusal in _REFUSALS):
            return REFUSED
        words = output.translate(_STRIPPED).split()
        there = set(words)
        bare = [letter for letter in options if letter in there]
        if len(bare) == 1 and words.index(bare[0]) > len(words) - 5:
            return bare[0]
        if not bare and REFUSED in there:
            return REFUSED
        said = _SAID.search(output)
        if said and said[1].upper() in options:
            return said[1].upper()
    if len(output.lower()) > 2 * sum(map(len, options.values())):
        return None
    return contained_option(output, options)


# ------------------------------------------------------------------------------------------- rules: lmms-eval's ranker

_PHRASES = (
    *("answer is", "the answer is", "the correct answer is", "correct answer is", "the best answer is"),
    *("best answer is", "the correct option is", "correct option is", "the best option is", "best option is"),
    *("the choice is", "choice is", "the correct choice is", "correct choice is", "i choose", "i select", "i pick"),
    *("my answer is", "my choice is", "옵션", "정답은", "답은", "답:", "答案是", "答案为", "选", "答えは"),
)
_FORMS = (("({})", 6), ("{}.", 5), ("{}:", 4), ("{})", 3), ("{} ", 2))


def ranked_letter(output: str, letters: Sequence[str]) -> str | None:
    """The letter in the most telling place, by lmms-eval's ranking; of several there the last.

    Start of the text, then its end, then behind "answer is", then `(X)`, `X.`, `X:`, `X)`, `X `, then anywhere.
    """
    text = output.strip()
    if not text:
        return None
    for mark in ",.!?;:'\"":
        text = text.strip(mark)
    bare = text.strip()
    text = f" {text} "
    found = [
        (rank, text.rfind(form.format(letter)), letter)
        for form, rank in _FORMS
        for letter in letters
        if form.format(letter) in text
    ]
    lower = text.lower()
    for phrase in _PHRASES:
        place = lower.find(phrase)
        if place >= 0:
            behind = ((text.find(letter, place + len(phrase)), letter) for letter in letters)
            found += [(7, at, letter) for at, letter in behind if at >= 0]
    for letter in letters:
        if bare.startswith(letter) and not bare[1:2].isalpha():
            found.append((10, 0, letter))
        if bare.endswith(letter) and not bare[-2:-1].isalpha():
            found.append((9, len(text), letter))
    found = found or [(0, text.rfind(letter), letter) for letter in letters if letter in text]
    return max(found, key=lambda item: item[:2])[2] if found else None
