"""Words of texts: those that carry the content, and a plain check of the language.

Content words are found by leaving out: stop words, words of asking and drawing, and common adjectives go, and endings
of plurals are cut off. That is no tagger: it takes some verbs for nouns, which makes the filters more lenient.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import yaml

from vargpt_lightning.utils.errors import UserError

_LISTS = yaml.safe_load(Path(__file__).with_name("words.yaml").read_text(encoding="utf-8"))
STOP_WORDS = {language: frozenset(found.split()) for language, found in _LISTS["stop_words"].items()}
GENERIC, ADJECTIVES = frozenset(_LISTS["generic"].split()), frozenset(_LISTS["adjectives"].split())
SUPPORTED = tuple(STOP_WORDS)
LATIN_SHARE = 0.7
FEWEST_WORDS = 6
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


def words(text: str) -> list[str]:
    """The words of a text in lower case."""
    return [word.replace("’", "'") for word in _WORD.findall(text.lower())]


def content_words(text: str, language: str = "en") -> frozenset[str]:
    """What the text is about, for comparison: words that are neither stop words, nor of asking, nor adjectives."""
    stop = STOP_WORDS.get(language, frozenset()) | STOP_WORDS["en"]
    found = {_stem(word) for word in words(text) if len(word) > 1 and word not in stop}
    return frozenset(found - _GENERIC_STEMS - _ADJECTIVE_STEMS)


def named(text: str, language: str = "en") -> frozenset[str]:
    """A caption's content words; where nothing is left of it, all its words."""
    return content_words(text, language) or frozenset(map(_stem, words(text)))


def _stem(word: str) -> str:
    word = word.removesuffix("'s")
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("ches", "shes", "xes", "sses", "zes", "oes")):
        return word[:-2]
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


_GENERIC_STEMS = frozenset(map(_stem, GENERIC)) | GENERIC
_ADJECTIVE_STEMS = frozenset(map(_stem, ADJECTIVES)) | ADJECTIVES


def check_language(language: str) -> None:
    """Raises UserError for a language without a list of stop words; "" checks nothing."""
    if language and language not in STOP_WORDS:
        raise UserError(f"language {language!r}; expected one of {', '.join(SUPPORTED)}, or nothing for no check")


def in_language(text: str, language: str) -> bool:
    """Whether a text may be in the language: its letters are Latin, and no other language's stop words are more.

    This is no identification of languages: texts below six words pass by their script alone, and so does a language
    that is not in the list when its stop words do not show.
    """
    letters = [letter for letter in text if letter.isalpha()]
    if not letters:
        return False
    latin = sum(letter.isascii() or unicodedata.name(letter, "").startswith("LATIN") for letter in letters)
    if latin < LATIN_SHARE * len(letters):
        return False
    found = words(text)
    if len(found) < FEWEST_WORDS:
        return True
    counts = {name: sum(word in stop for word in found) for name, stop in STOP_WORDS.items()}
    return 0 < counts[language] >= max(counts.values())
