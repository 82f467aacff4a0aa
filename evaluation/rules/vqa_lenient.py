"""A short answer out of a model's sentence: the project's own reading of talkative outputs (protocol "lenient").

It looks at the output and the question alone, never at the keys, so that it cannot pick the words that score.
"""

from __future__ import annotations

import re

_LOOKED_AT = 2000  # characters; an answer that comes later is none

_ROLE = re.compile(r"^(?:assistant|model|gpt)\s*:\s*", re.IGNORECASE)
_SPECIAL = re.compile(r"</?s>|<\|[^|<>]{1,40}\|>|<eos>|<pad>|\x00")
_EMPHASIS = re.compile(r"\*\*|__|`")
_ANSWER_IS = re.compile(
    r"\banswer(?:\s+to\s+(?:the|this|your)\s+question)?\s*(?:(?:is|would be|should be)\b|[:=])"
    r"\s*[:=]?\s*(?P<rest>\S.*)",
    re.IGNORECASE | re.DOTALL,
)
_LEAD = re.compile(
    r"^(?:(?:so|well|okay|ok|sure|certainly|yes|no)\s*[,!]\s*)?"
    r"(?:based on [^,]{1,80},\s*|in (?:the|this) (?:image|picture|photo),?\s*)?"
    r"(?:(?:i (?:think|believe|see)|it (?:looks like|appears to be|seems to be|says|reads)|"
    r"(?:it|this|that|he|she)(?: is|'s)|they(?: are|'re)|there (?:is|are)|these are|those are|"
    r"the (?:\w+ ){1,4}(?:is|are|says|reads))\s+)",
    re.IGNORECASE,
)
# Not after an initial ("J. K. Smith", "a.m."), nor after "Dr", "St", "vs" and the like.
_SENTENCE_END = re.compile(r"(?<![\s.][A-Za-z])(?<!^[A-Za-z])(?<!\b[DMS][rst])(?<!\bvs)[.!?](?=\s|$)|\n")
_ASKS_YES_NO = re.compile(
    r"^\s*(?:is|are|was|were|do|does|did|can|could|will|would|should|has|have|had|may|might|am)\b", re.IGNORECASE
)
_QUOTES = "\"'“”‘’«» \t\r\n"


def short_answer(output: str, question: str = "") -> str:
    """Return the part of an output that is its answer.

    In turn: what a chat format left behind goes; what follows "the answer is" counts; the first sentence counts; "yes"
    or "no" at its beginning is the answer of a yes/no question; a beginning such as "it is" goes. An output of up to
    three words is taken as it is.
    """
    text = _SPECIAL.sub(" ", output[:_LOOKED_AT]).strip()
    text = _EMPHASIS.sub("", _ROLE.sub("", text)).strip()
    stated = _ANSWER_IS.search(text)
    text = _first_sentence(stated["rest"] if stated else text)
    if _ASKS_YES_NO.match(question) and " or " not in question:
        decided = re.match(r"(yes|no)\b", text, re.IGNORECASE)
        if decided:
            return decided[1].lower()
    if len(text.split()) > 3 or stated:
        text = _LEAD.sub("", text, count=1)
    return text.strip(_QUOTES)


def _first_sentence(text: str) -> str:
    """The text up to its first full stop that ends a sentence, or its first newline."""
    return _SENTENCE_END.split(text.strip(_QUOTES), maxsplit=1)[0].strip(_QUOTES)
