"""Marks around what turns say, put in before a chat template is rendered and found again in what it has made of them.

They are code points that no text has (Unicode's noncharacters); in what users write they become U+FFFD. White space at
the ends of a text stays outside of its marks, so that a template that strips it strips it still.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from vargpt_lightning.data.text.jinja_template import GENERATED

PICTURE = "\ufdd2"
"""Where a picture stands in a turn."""
BREAK = "\ufdd3"
"""Keeps apart what would be a special token."""
_OPEN, _CLOSE = "\ufdd4", "\ufdd5"
_DIGITS = {mark: [chr(first + digit) for digit in range(10)] for mark, first in ((_OPEN, 0xFDD6), (_CLOSE, 0xFDE0))}
_NUMBERS = {letter: str(number) for digits in _DIGITS.values() for number, letter in enumerate(digits)}
_MARK = re.compile(f"{_OPEN}([\ufdd6-\ufddf]+)|([\ufde0-\ufde9]+){_CLOSE}|[{GENERATED[0]}{GENERATED[1]}]|{PICTURE}")
_NO_TEXT = re.compile("[\ufdd0-\ufdef\ud800-\udfff]")

Span = tuple[int, int]
"""The first character of a stretch of text, and the one after its last."""


def clean(text: str) -> str:
    """Return a text without noncharacters and halves of surrogate pairs, which count as U+FFFD."""
    return _NO_TEXT.sub("\ufffd", text)


def marked(text: str, number: int) -> str:
    """Return a text with the marks of a turn's number around it."""
    core = text.strip()
    before = text[: len(text) - len(text.lstrip())] if core else text
    opening, closing = (
        "".join(_DIGITS[mark][int(digit)] for digit in str(number)) for mark in (_OPEN, _CLOSE)
    )  # fmt: skip
    return f"{before}{_OPEN}{opening}{core}{closing}{_CLOSE}{text[len(before) + len(core) :]}"


def unmarked(text: str) -> str:
    """Return a text without marks; the places of pictures stay."""
    return _MARK.sub(lambda found: PICTURE if found[0] == PICTURE else "", text)


@dataclass
class Found:
    """A rendered text without marks, and where they stood.

    Args:
        text: with the picture tokens in their places.
        opens, closes: where what the turns say begins and ends, by their numbers; several where it is
            written more than once.
        pictures: the places of pictures.
        generated: what `{% generation %}` holds.
    """

    text: str = ""
    opens: dict[int, list[int]] = field(default_factory=dict)
    closes: dict[int, list[int]] = field(default_factory=dict)
    pictures: list[Span] = field(default_factory=list)
    generated: list[Span] = field(default_factory=list)


def find_marks(text: str, picture_tokens: Sequence[str]) -> Found:
    """Take the marks out of a rendered text; its pictures become these tokens, one each."""
    result, pieces, length, last, started = Found(), list[str](), 0, 0, 0
    tokens = iter(picture_tokens)

    def add(piece: str) -> None:
        nonlocal length
        pieces.append(piece)
        length += len(piece)

    for match in _MARK.finditer(text):
        add(text[last : match.start()])
        last = match.end()
        if match[1]:
            result.opens.setdefault(_number(match[1]), []).append(length)
        elif match[2]:
            result.closes.setdefault(_number(match[2]), []).append(length)
        elif match[0] == GENERATED[0]:
            started = length
        elif match[0] == GENERATED[1]:
            result.generated.append((started, length))
        else:
            token = next(tokens)
            result.pictures.append((length, length + len(token)))
            add(token)
    add(text[last:])
    result.text = "".join(pieces)
    return result


def _number(digits: str) -> int:
    return int("".join(_NUMBERS[digit] for digit in digits))


class Spans:
    """Stretches of a text, to ask whether a character is in one."""

    def __init__(self, spans: Iterable[Span]) -> None:
        self.spans: list[Span] = []
        for start, end in sorted(spans):
            if self.spans and start <= self.spans[-1][1]:
                self.spans[-1] = (self.spans[-1][0], max(end, self.spans[-1][1]))
            else:
                self.spans.append((start, end))
        self._starts = [start for start, _ in self.spans]

    def __contains__(self, place: int) -> bool:
        number = bisect_right(self._starts, place) - 1
        return number >= 0 and place < self.spans[number][1]
