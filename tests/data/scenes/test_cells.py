"""What is held out: how much, and that everything is seen elsewhere."""

from __future__ import annotations

from itertools import combinations

import pytest

from vargpt_lightning.data.openmoji.pictures import DEFAULT_CATEGORIES, names
from vargpt_lightning.data.scenes.cells import COUNTS, hold_out
from vargpt_lightning.data.scenes.shapes import BY_NAME, COLOURS, SHAPES


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_the_share_is_held_out_and_each_part_is_seen_elsewhere(share: float) -> None:
    found = hold_out(share, 0)
    assert len(found.colours) == round(share * 32 * 8)
    assert len(found.counts) == round(share * 32 * 4)
    assert len(found.pairs) == round(share * 32 * 31 / 2)
    for shape in BY_NAME:
        assert sum(not found.colour(shape, colour) for colour in COLOURS) >= 2
        assert sum(not found.count(shape, count) for count in COUNTS) >= 2
        assert sum(not found.pair(shape, other) for other in BY_NAME if other != shape) >= 2
    for colour in COLOURS:
        assert sum(not found.colour(shape, colour) for shape in BY_NAME) >= 2
    for count in COUNTS:
        assert sum(not found.count(shape, count) for shape in BY_NAME) >= 2


def test_what_is_shown_anyway_is_never_held_out() -> None:
    found = hold_out(0.5, 3)
    assert not any(found.colour(shape.name, shape.native) for shape in SHAPES)
    assert not any(found.count(shape, 1) for shape in BY_NAME)
    everywhere = [hold_out(0.5, seed).colour("apple", "green") for seed in range(20)]
    assert any(everywhere)
    shown = names(DEFAULT_CATEGORIES)
    assert "green apple" in shown
    assert not any(hold_out(0.5, seed, shown).colour("apple", "green") for seed in range(20))


def test_both_orders_of_a_pair_are_one() -> None:
    found = hold_out(0.25, 0)
    assert all(found.pair(one, other) == found.pair(other, one) for one, other in combinations(BY_NAME, 2))


def test_the_seed_and_nothing_else_decides() -> None:
    assert hold_out(0.25, 0) == hold_out(0.25, 0) != hold_out(0.25, 1)
    assert sorted(hold_out(0.25, 0).colours)[:2] == [("T-shirt", "green"), ("T-shirt", "pink")]
