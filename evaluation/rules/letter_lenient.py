"""Our own rules for the letter that an output means: those of a reader. They take time linear in its length."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

# ------------------------------------------------------------------------------------------------- rules: our own

_TOKENS = re.compile(r"</?s>|<\|[a-z_]{1,30}\|>|^\s*(?:ASSISTANT|Assistant)\s*:")
_DECORATION = " \t\r\n.,:;!?*_`'\"()[]{}<>$“”‘’。，：；！？（）【】"
_BOXED = re.compile(r"\\boxed\s{0,3}\{\s{0,3}(?:\\text\s{0,3}\{)?\s{0,3}\(?([A-Za-z])\)?\s{0,3}\}")
_STATED = re.compile(
    r"(?:(?i:\b(?:answer|option|choice|choose|select|pick)\b)|答案|选|정답|答え)[\"'*_\s]{0,4}"
    r"(?:(?i:is|was|would\s{1,3}be|should\s{1,3}be|must\s{1,3}be)\b|[是为は은])?[\s:=]{0,4}"
    r"(?i:(?:option|choice|letter)\s{1,3})?[\"'*_(\[{<$“‘【]{0,4}([A-Za-z])(?![A-Za-z'’])"
)
_LEADING = re.compile(r"[*_(\[{\"'`<]{0,4}([A-Za-z])(?:[*_)\]}\"'`>]{0,4}[.:),\-–—\n]|[*_)\]}\"'`>]{1,4}(?:\s|$))")
_SECOND = re.compile(r"\s{0,3}(?:and|or|/|&)?\s{0,3}[(\[*]{0,3}[A-Z](?![A-Za-z])")  # "A. or B.": no choice
_DENIED = re.compile(r"\b(?:not|isn't|neither|nor)\s{1,3}(?:option\s{1,3})?[(\[*]{0,3}[A-Z](?![A-Za-z])")
_ALONE = re.compile(r"(?<![A-Za-z'’])[(\[*]{0,3}([A-Z])(?![A-Za-z'’])")
_SENTENCE = re.compile(r"\s{1,3}(?!(?:and|or)\b)[a-z]")  # what follows an article, or "I"
_KEPT = 20_000  # characters: the answer stands at one of a long output's ends


def lenient_letter(output: str, options: Mapping[str, str]) -> str | None:
    """The letter that a reader would take the output for, or None.

    In turn: the output is a letter; the last `\\boxed{X}`; the last "answer is X"; a letter that leads ("B. cat",
    "(B)", "B cat"); the output is an option's text; the one option whose text occurs as whole words, where an option
    inside another does not count; the one capital letter that stands alone and is neither denied nor an article.
    """
    text = _tidied(output)
    whole = text.strip(_DECORATION).removeprefix("Option ").removeprefix("option ")
    if whole.upper() in options and len(whole) == 1:
        return whole.upper()
    for rule in (_boxed, _stated, _leading, _by_text, _alone):
        found = rule(text, options)
        if found is not None:
            return found
    return None


def _tidied(output: str) -> str:
    """The output without reasoning blocks, special tokens and width variants."""
    text = output.rpartition("</think>")[2] or output
    if len(text) > 2 * _KEPT:
        text = text[:_KEPT] + "\n" + text[-_KEPT:]
    return _TOKENS.sub(" ", unicodedata.normalize("NFKC", text)).strip()


def _boxed(text: str, options: Mapping[str, str]) -> str | None:
    found = [letter.upper() for letter in _BOXED.findall(text) if letter.upper() in options]
    return found[-1] if found else None


def _stated(text: str, options: Mapping[str, str]) -> str | None:
    found = []
    for match in _STATED.finditer(text):
        letter = match[1].upper()
        # "the answer is a dog", "answer: I think": a word of the sentence, unless the sentence ends there.
        word = match[1] in "aAI" and _SENTENCE.match(text, match.end())
        if (
            letter in options
            and not word
            and (match[1].isupper() or not text[match.end() : match.end() + 1].strip(_DECORATION))
        ):
            found.append(letter)
    return found[-1] if found else None


def _leading(text: str, options: Mapping[str, str]) -> str | None:
    match = _LEADING.match(text)
    letter = (match[1] if match else text[:1]).upper()
    if letter not in options:
        return None
    if match and not _SECOND.match(text, match.end()):
        return letter
    rest = text[1:].strip().casefold()
    return letter if text[1:2].isspace() and rest and rest.startswith(options[letter].strip().casefold()) else None


def _by_text(text: str, options: Mapping[str, str]) -> str | None:
    said = " ".join(text.casefold().split())
    plain = {letter: " ".join(option.casefold().split()).strip(_DECORATION) for letter, option in options.items()}
    exact = [letter for letter, option in plain.items() if option and said.strip(_DECORATION) == option]
    if len(exact) == 1:
        return exact[0]
    found = {letter: option for letter, option in plain.items() if option and _has_words(said, option)}
    outer = [
        letter
        for letter, option in found.items()
        if not any(option != other and _has_words(other, option) for other in found.values())
    ]
    return outer[0] if len(outer) == 1 else None


def _has_words(text: str, part: str) -> bool:
    """Whether a part occurs in a text without a word character right before or behind it."""
    return re.search(rf"(?<!\w){re.escape(part)}(?!\w)", text) is not None


def _alone(text: str, options: Mapping[str, str]) -> str | None:
    found = set()
    for match in _ALONE.finditer(_DENIED.sub(" ", text)):
        article = match[0] in "AI" and _SENTENCE.match(match.string, match.end())
        if match[1] in options and not article:
            found.add(match[1])
    return found.pop() if len(found) == 1 else None
