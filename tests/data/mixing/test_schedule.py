"""Orders that are known at any place: choices met exactly, batches that cover epochs, records shuffled by blocks."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from math import ceil

import numpy as np
import pytest

from vargpt_lightning.data.mixing.schedule import Schedule, block_order, covering, shares


def test_every_round_has_the_counts_and_no_other_order_than_the_seeds() -> None:
    schedule = Schedule({"a": 3, "b": 7}, 5)
    slots = [schedule.at(slot) for slot in range(30)]
    for first in (0, 10, 20):
        assert Counter(name for name, _ in slots[first : first + 10]) == {"a": 3, "b": 7}
    assert [count for name, count in slots if name == "a"] == list(range(9))
    again, other = Schedule({"a": 3, "b": 7}, 5), Schedule({"a": 3, "b": 7}, 6)
    assert [again.at(slot) for slot in (29, 3)] == [slots[29], slots[3]]
    assert [other.at(slot) for slot in range(30)] != slots


@pytest.mark.parametrize("slot", [0, 1, 10, 17])
def test_what_came_before_a_slot(slot: int) -> None:
    schedule = Schedule({"a": 3, "b": 7}, 5)
    counted = Counter(schedule.at(place)[0] for place in range(slot))
    assert schedule.before(slot) == {"a": counted["a"], "b": counted["b"]}


def test_choices_are_spread() -> None:
    names = [Schedule({"rare": 10, "often": 990}, 0).at(slot)[0] for slot in range(1000)]
    places = [slot for slot, name in enumerate(names) if name == "rare"]
    assert all(number * 100 - 5 <= place <= number * 100 + 105 for number, place in enumerate(places))


def test_shares_sum_up_and_none_is_lost() -> None:
    assert shares({"a": 1.0, "b": 2.0, "c": 1e-9}, 1000) == {"a": 333, "b": 666, "c": 1}


@pytest.mark.parametrize("epochs", [Fraction(1), Fraction(3), Fraction(1, 3), Fraction(7, 2)])
def test_batches_cover_what_every_group_needs(epochs: Fraction) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        needed = {str(group): Fraction(int(rng.integers(1, 90)), int(rng.integers(1, 9))) for group in range(3)}
        wanted = {group: ceil(epochs * need) for group, need in needed.items()}
        total = sum(wanted.values())
        assert covering(needed, total) == wanted
        more = covering(needed, total + 2)
        assert sum(more.values()) == total + 2 and all(more[group] >= wanted[group] for group in wanted)
    assert sum(covering(needed, 1).values()) == 1


COUNTS = [5, 1, 9, 4, 7, 3, 2]


@pytest.mark.parametrize("window", [1, 2, 3, 7, 99])
def test_an_order_by_blocks_has_every_record_once(window: int) -> None:
    order = block_order(COUNTS, window, np.random.default_rng(1))
    assert sorted(order.tolist()) == list(range(sum(COUNTS)))


@pytest.mark.parametrize("window", [1, 3])
def test_few_shards_are_read_at_a_time(window: int) -> None:
    shard_of = np.repeat(np.arange(len(COUNTS)), COUNTS)
    order = shard_of[block_order(COUNTS, window, np.random.default_rng(1))].tolist()
    first = {shard: order.index(shard) for shard in set(order)}
    last = {shard: len(order) - order[::-1].index(shard) for shard in set(order)}
    together = [sum(first[shard] <= place < last[shard] for shard in first) for place in range(len(order))]
    assert max(together) <= window
    assert sorted(first, key=lambda shard: first[shard]) != sorted(first), "the shards are shuffled"


def test_within_one_window_all_records_are_shuffled_as_one() -> None:
    order = block_order(COUNTS, len(COUNTS), np.random.default_rng(1))
    assert order.tolist() == np.random.default_rng(1).permutation(sum(COUNTS)).tolist()
