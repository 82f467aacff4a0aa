"""Which combinations are held out: cells of shape and colour, of shape and count, and pairs of shapes.

A hash decides before any training, so that what is held out depends on the names and the seed alone. Every shape,
colour, count and relation is seen in other cells.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from vargpt_lightning.data.scenes.shapes import COLOURS, SHAPES, Shape

COUNTS = (1, 2, 3, 4)
KEPT = 2  # cells in which each shape, colour and count is seen, whatever is held out
Cell = tuple[str, str | int]
"""A shape's name with a colour, a count, or another shape's name."""


@dataclass(frozen=True)
class HeldOut:
    """Combinations that no training record shows.

    Args:
        colours: pairs of shape and colour; never a shape's native colour, which it has where none is said.
        counts: pairs of shape and count; never 1, which every picture of a single thing shows.
        pairs: unordered pairs of shapes in the order of the alphabet: all four relations and both orders of a pair are
            held out together.
    """

    colours: frozenset[Cell]
    counts: frozenset[Cell]
    pairs: frozenset[Cell]

    def colour(self, shape: str, colour: str) -> bool:
        """Whether the shape in this colour is held out."""
        return (shape, colour) in self.colours

    def count(self, shape: str, count: int) -> bool:
        """Whether that many of the shape are held out."""
        return (shape, count) in self.counts

    def pair(self, one: str, other: str) -> bool:
        """Whether the two shapes together are held out, in any order."""
        return (min(one, other), max(one, other)) in self.pairs


def hold_out(share: float, seed: int, shown: Iterable[str] = (), shapes: Sequence[Shape] = SHAPES) -> HeldOut:
    """Return the cells held out: `share` (0 to 0.5) of all shape-colour cells, shape-count cells and pairs of shapes.

    Args:
        share: of all cells.
        seed: another one holds out others.
        shown: names of pictures that are trained on besides; a cell that one of them shows, as "green apple" does, is
            not held out.
        shapes: which shapes there are.
    """
    names = sorted(shape.name for shape in shapes)
    native = {(shape.name, shape.native) for shape in shapes}
    words = [set(name.lower().split()) for name in shown]
    native |= {(name, colour) for name in names for colour in COLOURS if {name.lower(), colour} in words}
    colours = [(name, colour) for name in names for colour in COLOURS]
    counts = [(name, count) for name in names for count in COUNTS]
    pairs = list(combinations(names, 2))
    return HeldOut(
        _chosen(colours, share, f"{seed}:colour", lambda cell: cell not in native),
        _chosen(counts, share, f"{seed}:count", lambda cell: cell[1] != 1),
        _chosen(pairs, share, f"{seed}:pair", lambda cell: True),
    )


def _chosen(cells: Iterable[Cell], share: float, salt: str, free: Callable[[Cell], bool]) -> frozenset[Cell]:
    """The first of the free cells by hash, as long as each first and each second part stays seen in `KEPT` cells."""
    cells = list(cells)
    left = [Counter(cell[place] for cell in cells) for place in (0, 1)]
    wanted = math.floor(share * len(cells) + 0.5)
    chosen: list[Cell] = []
    for cell in sorted(filter(free, cells), key=lambda cell: _hash(salt, cell)):
        if len(chosen) < wanted and all(left[place][cell[place]] > KEPT for place in (0, 1)):
            chosen.append(cell)
            for place in (0, 1):
                left[place][cell[place]] -= 1
    return frozenset(chosen)


def _hash(salt: str, cell: Cell) -> str:
    return hashlib.sha256(f"{salt}:{cell[0]}:{cell[1]}".encode()).hexdigest()
