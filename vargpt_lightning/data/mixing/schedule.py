"""In which order choices come, and records of shards, so that any place of the order is known without walking there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import lru_cache

import numpy as np

WINDOW = 16  # shards among which records are shuffled


class Schedule:
    """An endless sequence of choices that meets their counts exactly in every round, spread evenly inside it.

    How often a choice came before any slot is known without walking there; a round has as many slots as the counts
    sum up to.
    """

    def __init__(self, counts: Mapping[str, int], seed: int) -> None:
        self.names = list(counts)
        self._counts = np.array(list(counts.values()), dtype=np.int64)
        self.round = int(self._counts.sum())
        self._seed = seed
        self._order = lru_cache(maxsize=2)(self._make_round)

    def at(self, slot: int) -> tuple[str, int]:
        """Return the choice of a slot, and how many slots before had the same."""
        number, place = divmod(slot, self.round)
        order, before = self._order(number)
        choice = int(order[place])
        return self.names[choice], int(number * self._counts[choice] + before[place])

    def before(self, slot: int) -> dict[str, int]:
        """Return how often each choice comes before a slot."""
        number, place = divmod(slot, self.round)
        counts = number * self._counts
        if place:
            counts = counts + np.bincount(self._order(number)[0][:place], minlength=len(self.names))
        return dict(zip(self.names, counts.tolist(), strict=True))

    def _make_round(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng([self._seed, number])
        choices = np.repeat(np.arange(len(self.names), dtype=np.int32), self._counts)
        before = np.concatenate([np.arange(count) for count in self._counts])
        # evenly spread with a little jitter, which keeps each choice's own order
        order = np.argsort((before + rng.random(self.round)) / self._counts[choices], kind="stable")
        return choices[order], before[order]


def shares(weights: Mapping[str, float], total: int) -> dict[str, int]:
    """Return counts in proportion to the weights that sum up to `total`, by largest remainders; none is 0."""
    values = np.array(list(weights.values()), dtype=float)
    exact = values / values.sum() * total
    counts = np.floor(exact).astype(int)
    # a source of tiny weight still comes once in a round
    counts = np.maximum(counts, 1)
    while counts.sum() != total:
        step = 1 if counts.sum() < total else -1
        gap = np.where((counts > 1) | (step > 0), (exact - counts) * step, -np.inf)
        counts[int(gap.argmax())] += step
    return dict(zip(weights, counts.tolist(), strict=True))


def covering(needed: Mapping[str, Fraction], total: int) -> dict[str, int]:
    """Return counts that sum up to `total` and cover as many rounds of all needs as can be covered with it.

    A round needs so many of each, not always a whole number; with the total `sum(ceil(rounds * need))` each count is
    at least its `ceil(rounds * need)` (Adams' method of apportionment).
    """
    rounds = max(Fraction(total - len(needed)) / sum(needed.values()), Fraction(0))
    counts = {name: -((-rounds * need) // 1) for name, need in needed.items()}
    while (left := total - sum(counts.values())) > 0:
        assert left <= len(needed)
        # the one that runs out first
        counts[min(needed, key=lambda name: counts[name] / needed[name])] += 1
    return {name: int(count) for name, count in counts.items()}


def block_order(counts: Sequence[int], window: int, rng: np.random.Generator) -> np.ndarray:
    """Return a shuffled order of the records of shards with so many records each.

    The shards are shuffled, then the records among `window` shards at a time: storage is read from a few files at
    once, each of them from its beginning to its end within a short time. With no more shards than that all records
    are shuffled.
    """
    total = int(np.sum(counts, dtype=np.int64))
    if len(counts) <= window:
        return rng.permutation(total)
    ends = np.cumsum(counts)
    blocks = []
    for shards in np.array_split(rng.permutation(len(counts)), -(-len(counts) // window)):
        records = np.concatenate([np.arange(ends[shard] - counts[shard], ends[shard]) for shard in shards])
        blocks.append(rng.permutation(records))
    return np.concatenate(blocks)
