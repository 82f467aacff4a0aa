"""Where the things of a scene stand, and how that is said.

All things have one size and stand on the grid of eight pixels that a visual token covers, so that each shape has one
look, and words tell all layouts apart: a drawing follows from the answer that announces it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

UNIT = 64  # the places and sizes below are of a picture of this many pixels
LENGTH = 24  # the longer side of a thing
Centre = tuple[int, int]
_AT = (12, 28, 52)  # near, middle, far along an axis
_APART = (_AT[0], _AT[2])
_CLOSER = ((12, 44), _APART, (20, 52))  # two along an axis with eight pixels or more between them: near, middle, far

PLACES = (
    ("at the top left", "at the top", "at the top right"),
    ("on the left", "in the middle", "on the right"),
    ("at the bottom left", "at the bottom", "at the bottom right"),
)


@dataclass(frozen=True)
class Layout:
    """The centres of a scene's things, in pixels of a picture of `UNIT` pixels, and the words for them.

    Args:
        centres: (x, y) of each thing.
        arrangement: how several equal things stand to each other; empty for one or for a pair.
        place: where in the picture they are.
    """

    centres: tuple[Centre, ...]
    arrangement: str
    place: str


def single_layouts() -> tuple[Layout, ...]:
    """Return the layouts of one thing."""
    return tuple(
        Layout(((_AT[column], _AT[row]),), "", PLACES[row][column]) for row, column in product(range(3), range(3))
    )


def pair_layouts(relation: str) -> tuple[Layout, ...]:
    """Return the layouts of two things of which the first is "left of" or "above" the second."""
    return tuple(_two(relation == "left of", ""))


def count_layouts(count: int) -> tuple[Layout, ...]:
    """Return the layouts of two, three or four equal things."""
    if count == 2:
        return (*_two(True, "side by side"), *_two(False, "one above the other"))
    return tuple(_three() if count == 3 else _four())


def _two(in_row: bool, arrangement: str) -> Iterator[Layout]:
    for number, across in enumerate(_AT):
        centres = tuple((each, across) if in_row else (across, each) for each in _APART)
        place = PLACES[number][1] if in_row else PLACES[1][number]
        yield Layout(centres, arrangement, place)


def _three() -> Iterator[Layout]:
    near, middle, far = _AT
    for word, single, double in (("above", near, far), ("below", far, near)):
        yield Layout(((near, double), (far, double), (middle, single)), f"with one {word} the others", "")
    for word, single, double in (("left", near, far), ("right", far, near)):
        yield Layout(((double, near), (double, far), (single, middle)), f"with one {word} of the others", "")


def _four() -> Iterator[Layout]:
    for column, along in enumerate(_CLOSER):
        yield Layout(tuple(product(along, _APART)), "in a block", PLACES[1][column])
