"""Which scenes there are: those of seen combinations, and those that are held out."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from vargpt_lightning.data.scenes.cells import COUNTS, HeldOut
from vargpt_lightning.data.scenes.scene import Relation, Scene, Thing
from vargpt_lightning.data.scenes.shapes import BY_NAME, COLOURS, SHAPES, Shape

UNNAMED_EVERY = 4  # pictures of a count, one has the native colour; there are few layouts of four things
RELATIONS: tuple[Relation, ...] = ("left of", "above")  # the inverse ones are other words for the same pictures


@dataclass(frozen=True)
class SceneCounts:
    """How many pictures are made of a cell, for each kind of scene.

    `placings` is how many of the four placings of two shapes there are, `pair` how many pictures of each of these.
    """

    colour: int
    count: int
    pair: int
    placings: int = 4


def scenes(
    heldout: HeldOut, counts: SceneCounts, *, unseen: bool, seed: int, shapes: Sequence[Shape] = SHAPES
) -> Iterator[Scene]:
    """Yield the scenes of all cells that are held out (`unseen`), or of all others.

    Three of four counts and every second pair say their colours, which are of seen cells; the others have native ones.
    """
    for shape in shapes:
        for colour in COLOURS:
            if heldout.colour(shape.name, colour) == unseen:
                for _ in range(counts.colour):
                    yield Scene("colour", (Thing(shape.name, colour),))
    for shape in shapes:
        for count in COUNTS[1:]:
            if heldout.count(shape.name, count) == unseen:
                rng = random.Random(f"{seed}:{shape.name}:{count}")
                for number in range(counts.count):
                    named = number % UNNAMED_EVERY != 0
                    colour = _colour(shape.name, named, heldout, rng)
                    yield Scene("count", (Thing(shape.name, colour),) * count, named_colours=named)
    for pair in combinations(sorted(shape.name for shape in shapes), 2):
        if heldout.pair(*pair) == unseen:
            rng = random.Random(f"{seed}:{pair[0]}:{pair[1]}")
            placings = [(relation, names) for relation in RELATIONS for names in (pair, pair[::-1])]
            for relation, names in rng.sample(placings, counts.placings):
                for number in range(counts.pair):
                    named = (number + rng.randrange(2)) % 2 == 1
                    things = tuple(Thing(name, _colour(name, named, heldout, rng)) for name in names)
                    yield Scene("pair", things, relation, named_colours=named)


def _colour(shape: str, named: bool, heldout: HeldOut, rng: random.Random) -> str:
    if not named:
        return BY_NAME[shape].native
    return rng.choice([colour for colour in COLOURS if not heldout.colour(shape, colour)])
