"""Why rows were rejected, in few words, so that they can be counted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

OTHER = "something else"
_KINDS = {
    r"pixels in \d+ bytes; expected at most": "a picture of too many pixels",
    r"a (\.\w+) picture, which is not read": r"a picture of a kind that is not read (\1)",
    r"have different pictures": "a name that several archives or folders have",
    r"leads? out of": "a name that leads out of its folder",
    r"no turns?\b|no turn of the assistant": "no turns, or none of the assistant",
    r"turn is empty": "an empty turn",
    r"unknown role": "an unknown role",
    r"placeholders?\b": "placeholders unlike the pictures",
    r"NUL character": "a NUL in the text",
    r"lone surrogate|UTF-8 cannot hold": "a text that is not Unicode",
    r"that are no picture|broken picture": "a picture that is broken",
    r"no bytes": "a picture without bytes",
    r"picture .*not found|no picture; expected": "a picture that is missing",
    r"caption": "no caption, or an empty one",
    r"duplicate id": "an id that was there before",
    r"no JSON|expected an object": "a row that is no JSON object",
}


def reason_kind(reason: str) -> str:
    """Return the kind of a reason; the names and numbers in it do not count."""
    for pattern, kind in _KINDS.items():
        if found := re.search(pattern, reason):
            return found.expand(kind)
    return OTHER


def count_reasons(reasons: Iterable[str]) -> dict[str, int]:
    """Return how often each kind of reason was there, the commonest first."""
    counts = Counter(map(reason_kind, reasons))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
