"""Answers of visual question answering in the form in which they are compared.

Two normalisers are in use, and they share most steps: the one of the VQA evaluation server (`eval_ai`, which Pythia,
LLaVA and lmms-eval carry) and the one of the VQA data set's own evaluation code (`punctuation` and `words`). Their
peculiarities are kept, for published numbers contain them: "none" becomes "0"; a period goes unless a digit follows,
whatever stands before it; only the first 32 periods go; articles go even where they are the whole answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache, wraps

_PERIODS = 32  # upstream passes a flag where the number of substitutions is expected
_CACHED_LENGTH = 80  # longer texts are hardly ever met twice, and would make the cache large

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_WORDS: dict[str, str] = {name: str(number) for number, name in enumerate(_NUMBERS)} | {"none": "0"}
_ARTICLES = frozenset({"a", "an", "the"})
_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_ANY_MARK = re.compile(f"[{re.escape(_MARKS)}.]")
_PERIOD = re.compile(r"\.(?!\d)")
_COMMAS_IN_NUMBER = re.compile(r"(?<=\d),+(?=\d)")
_COMMA_IN_NUMBER = re.compile(r"\d,\d")

# What may stand before an ending whose apostrophe was left out: "couldve" is could + 've.
_STEMS = {
    "n't": "ai are ca could did do does had has have is might must need ought sha should was were wo would",
    "'ve": "could might must not should they we what where who would you",
    "'d": "he how it someone something there they where who you",
    "'ll": "how it somebody someone something they what who why you",
    "'re": "there they what why you",
    "'s": "he how somebody someone that there what when where who why",
}
# Two endings, of which one lost its apostrophe: "hed've" and "he'dve" are he + 'd + 've.
_STEMS_OF_TWO = {
    "'d": "I he it she somebody someone something there they we who you",
    "n't": "could had might should would",
}
# "somebody'd" loses its apostrophe upstream; the forms with a capital never meet a text, which is lower case by then.
_ODD = {
    "Im": "I'm",
    "Ive": "I've",
    "let's": "let's",
    "maam": "ma'am",
    "oclock": "o'clock",
    "she's": "she's",
    "somebody'd": "somebodyd",
    "twas": "'twas",
    **dict.fromkeys(("ow's'at", "'ows'at", "'ow'sat"), "'ow's'at"),
    "yall": "y'all",
    **dict.fromkeys(("yall'll", "y'allll"), "y'all'll"),
    **dict.fromkeys(("yall'd've", "y'alld've", "y'all'dve"), "y'all'd've"),
}


def _contractions() -> Iterator[tuple[str, str]]:
    """All forms without an apostrophe, and what they become."""
    for ending, stems in _STEMS.items():
        for stem in stems.split():
            yield stem + ending.replace("'", ""), stem + ending
    for ending, stems in _STEMS_OF_TWO.items():
        for stem in stems.split():
            yield f"{stem}{ending.replace(chr(39), '')}'ve", f"{stem}{ending}'ve"
            yield f"{stem}{ending}ve", f"{stem}{ending}'ve"
    yield from _ODD.items()


CONTRACTIONS: dict[str, str] = dict(_contractions())


def blanks(text: str) -> str:
    """Turn newlines and tabs into blanks and strip both ends."""
    return text.replace("\n", " ").replace("\t", " ").strip()


def punctuation(text: str, commas_in_row: bool = True) -> str:
    """Delete or replace punctuation.

    A mark that stands beside a blank anywhere is deleted everywhere, else it becomes a blank; all are deleted when a
    comma stands between two digits. `commas_in_row`: more than one comma between them counts too (evaluation server
    and lmms-eval; not the data set's own code).
    """
    if not _ANY_MARK.search(text):
        return text
    pattern = _COMMAS_IN_NUMBER if commas_in_row else _COMMA_IN_NUMBER
    delete_all = "," in text and pattern.search(text) is not None
    changes: dict[int, str | None] = {}
    for mark in _MARKS:
        if mark in text:
            deleted = delete_all or mark + " " in text or " " + mark in text
            changes[ord(mark)] = None if deleted else " "
    text = text.translate(changes) if changes else text
    return _PERIOD.sub("", text, count=_PERIODS)


def words(text: str, keep_lone_article: bool = False) -> str:
    """Lower the case, write numbers up to ten as digits, drop articles, put apostrophes where they are missing.

    `keep_lone_article` leaves a text of nothing but articles as it is, for "a" may be the answer.
    """
    found = [_WORDS.get(word, word) for word in text.lower().split()]
    kept = [CONTRACTIONS.get(word, word) for word in found if word not in _ARTICLES]
    return " ".join(kept if kept or not keep_lone_article else found)


def _remembered(normalise: Callable[[str], str]) -> Callable[[str], str]:
    """Keep the results for short texts: the ten keys of a question repeat each other, and those of other questions."""
    cached = lru_cache(1 << 16)(normalise)

    @wraps(normalise)
    def remembered(text: str) -> str:
        return cached(text) if len(text) <= _CACHED_LENGTH else normalise(text)

    return remembered


def _tokenised(text: str) -> str:
    """The step that the evaluation server takes first."""
    return blanks(text.lower().replace(",", "").replace("?", "").replace("'s", " 's"))


@_remembered
def eval_ai(text: str) -> str:
    """All steps of the evaluation server's normaliser."""
    return words(punctuation(_tokenised(text)))


@_remembered
def eval_ai_with_articles(text: str) -> str:
    """The same, but an answer that is an article stays."""
    return words(punctuation(_tokenised(text)), keep_lone_article=True)


@_remembered
def punctuation_and_words(text: str) -> str:
    """The steps that lmms-eval takes for VQAv2: as the evaluation server, without the first."""
    return words(punctuation(blanks(text)))


@_remembered
def data_set(text: str) -> str:
    """The steps of the VQA data set's own evaluation code."""
    return words(punctuation(blanks(text), commas_in_row=False))
