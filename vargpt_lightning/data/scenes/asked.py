"""What scene a request asks for, read from its words: the way back from `wording`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import cast

from vargpt_lightning.data.scenes.scene import INVERSE, Kind, Relation, Scene, Thing
from vargpt_lightning.data.scenes.shapes import BY_NAME, COLOURS, SHAPES
from vargpt_lightning.data.scenes.wording import NUMBERS, SAID, SIDES

FIRST: tuple[Relation, ...] = ("left of", "above")
"""The relations that scenes are kept with."""
_SINGLE = {"a": 1, "an": 1, "the": 1}
# What may follow a thing; of "a horse face" and "a bell pepper" the first word is no shape.
_AFTER = (
    "for",
    "please",
    "and",
    "side",
    "one",
    "with",
    "in",
    "on",
    "at",
    "to",
    "left",
    "right",
    "above",
    "over",
    "below",
    "under",
)


@dataclass(frozen=True)
class _Named:
    """A thing as the words name it: how many of what, and in which colour if one is said."""

    count: int
    shape: str
    colour: str | None
    start: int
    stop: int

    @property
    def thing(self) -> Thing:
        return Thing(self.shape, self.colour or BY_NAME[self.shape].native)


def scene_asked(text: str) -> Scene | None:
    """Return the scene that a request asks for; None where it names none, or more than two things or one sort."""
    named = _things(text)
    if len(named) == 1:
        (one,) = named
        kind: Kind = "count" if one.count > 1 else "colour"
        return Scene(kind, (one.thing,) * one.count, None, one.colour is not None)
    if len(named) != 2 or any(each.count != 1 for each in named):
        return None
    relation = _relation(text, named)
    if relation is None:
        return None
    colours = all(each.colour is not None for each in named)
    things = (named[0].thing, named[1].thing)
    if relation not in FIRST:
        things, relation = things[::-1], INVERSE[relation]
    return Scene("pair", things, relation, colours)


def _things(text: str) -> list[_Named]:
    counts = _SINGLE | {word: number for number, word in enumerate(NUMBERS)}
    return [
        _Named(
            counts[count.lower()],
            _shapes(counts[count.lower()] > 1)[shape.lower()],
            colour.lower() if colour else None,
            *match.span(),
        )
        for match in _pattern().finditer(text)
        for count, colour, shape in [match.groups()]
        if counts[count.lower()] and shape.lower() in _shapes(counts[count.lower()] > 1)
    ]


def _relation(text: str, named: Sequence[_Named]) -> Relation | None:
    """How the first named thing stands to the second: by the words between them, or by the side said of each."""
    first, second = named
    between = " ".join(text[first.stop : second.start].lower().split())
    for relation, ways in SAID.items():
        if between in ways:
            return cast(Relation, relation)
    for relation, (one, other) in SIDES.items():
        after = text[second.stop :].lower().lstrip()
        if between.startswith(one) and after.startswith(other):
            return cast(Relation, relation)
        if between.startswith(other) and after.startswith(one):
            return INVERSE[relation]
    return None


@cache
def _shapes(several: bool) -> dict[str, str]:
    """Shapes by what one or several of them are called, in small letters."""
    return {(shape.plural if several else shape.name).lower(): shape.name for shape in SHAPES}


@cache
def _pattern() -> re.Pattern[str]:
    counts, colours = "|".join([*_SINGLE, *NUMBERS]), "|".join(COLOURS)
    names = sorted(_shapes(False) | _shapes(True), key=len, reverse=True)
    shapes, after = "|".join(map(re.escape, names)), "|".join(_AFTER)
    follows = rf"(?=\s*$|\s*[^\w\s-]|\s+(?:{after})\b)"
    return re.compile(rf"(?<!\w)({counts})\s+(?:({colours})\s+)?({shapes}){follows}", re.IGNORECASE)
