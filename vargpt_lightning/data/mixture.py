"""Which records make which batch: several sources mixed by weight, as a pure function of seed and step."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Dataset, Sampler

from vargpt_lightning.errors import UserError

_ROUND = 1000  # slots in which the weights are met exactly


class Place(NamedTuple):
    """One draw of a mixture: a record of a source, in its how-manieth shuffled walk through the source."""

    source: str
    position: int
    epoch: int


class SkippedRecord(Exception):
    """A record that cannot be used in training: a picture that is none, or nothing left to train."""


class _Schedule:
    """An endless sequence of choices that meets the weights exactly in every round, spread evenly inside it.

    How often a choice came before any slot is known without walking there.
    """

    def __init__(self, weights: Mapping[str, float], seed: int) -> None:
        self.names = list(weights)
        self._counts = _largest_remainder(np.array(list(weights.values()), dtype=float), _ROUND)
        self._seed = seed
        self._round = lru_cache(maxsize=4)(self._make_round)

    def at(self, slot: int) -> tuple[str, int]:
        """Return the choice of a slot, and how many slots before had the same."""
        order, before = self._round(slot // _ROUND)
        choice = int(order[slot % _ROUND])
        return self.names[choice], int(slot // _ROUND * self._counts[choice] + before[slot % _ROUND])

    def _make_round(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng([self._seed, number])
        choices = np.repeat(np.arange(len(self.names)), self._counts)
        before = np.concatenate([np.arange(count) for count in self._counts])
        # evenly spread with a little jitter, which keeps each choice's own order
        places = (before + rng.random(_ROUND)) / self._counts[choices]
        order = np.lexsort((choices, places))
        return choices[order], before[order]


def _largest_remainder(weights: np.ndarray, total: int) -> np.ndarray:
    exact = weights / weights.sum() * total
    counts = np.floor(exact).astype(int)
    # a source of tiny weight still comes once in a round
    counts = np.maximum(counts, 1)
    while counts.sum() != total:
        step = 1 if counts.sum() < total else -1
        gap = np.where((counts > 1) | (step > 0), (exact - counts) * step, -np.inf)
        counts[int(gap.argmax())] += step
    return counts


class MixtureBatchSampler(Sampler[list[Place]]):
    """Batches of places, from several sources by weight; batch n depends on the seed and n alone.

    Every source is walked in shuffled epochs of its own. `batch_size` is one rank's; the ranks take disjoint parts of
    each step's global batch of `batch_size * world_size`. Weights are shares of samples, whatever the sources' sizes.
    With `groups` (source name to group name) each batch comes from one group alone, groups taken by the sum of their
    weights: batches of records alike in length waste less padding. A group in `batch_sizes` has batches of its own
    size; weights between the groups then are shares of batches.
    Raises UserError for a weight that is negative or names no source, no positive weight, an empty source, or a rank
    outside the world.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        weights: Mapping[str, float],
        batch_size: int,
        *,
        steps: int,
        start_step: int = 0,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        groups: Mapping[str, str] | None = None,
        batch_sizes: Mapping[str, int] | None = None,
    ) -> None:
        _check_mixture(sizes, weights)
        if batch_size < 1 or not 0 <= rank < world_size:
            raise UserError(
                f"batch_size {batch_size}, rank {rank} of {world_size}; expected at least 1, and a rank below"
            )
        self.sizes, self.batch_size, self.batch_sizes = dict(sizes), batch_size, dict(batch_sizes or {})
        self.steps, self.start_step, self.seed = steps, start_step, seed
        self.rank, self.world_size = rank, world_size
        used = {name: weight for name, weight in weights.items() if weight > 0}
        members: dict[str, dict[str, float]] = {}
        for name, weight in used.items():
            members.setdefault(groups.get(name, name) if groups else "", {})[name] = weight
        self._groups = _Schedule({group: sum(inside.values()) for group, inside in members.items()}, seed)
        self._inside = {group: _Schedule(inside, seed + 1) for group, inside in members.items()}
        self._permutation = lru_cache(maxsize=2 * len(used))(self._permute)

    def __len__(self) -> int:
        return max(0, self.steps - self.start_step)

    def __iter__(self) -> Iterator[list[Place]]:
        return (self.batch(step) for step in range(self.start_step, self.steps))

    def batch(self, step: int) -> list[Place]:
        """Return this rank's places of a step."""
        group, before = self._groups.at(step)
        size = self.batch_sizes.get(group, self.batch_size)
        first = (before * self.world_size + self.rank) * size
        return [self._place(*self._inside[group].at(slot)) for slot in range(first, first + size)]

    def _place(self, source: str, draw: int) -> Place:
        epoch, drawn = divmod(draw, self.sizes[source])
        return Place(source, int(self._permutation(source, epoch)[drawn]), epoch)

    def _permute(self, source: str, epoch: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, zlib.crc32(source.encode()), epoch])
        return rng.permutation(self.sizes[source])


class Part(Dataset[Any]):
    """At most `count` records of a source, chosen by the seed: fewer are a part of more, in the source's order."""

    def __init__(self, source: Dataset[Any], count: int, seed: int) -> None:
        self.source = source
        size = len(source)  # type: ignore[arg-type]
        self.positions = np.sort(np.random.default_rng(seed).permutation(size)[:count])

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, position: int) -> Any:
        return self.source[int(self.positions[position])]


def _check_mixture(sizes: Mapping[str, int], weights: Mapping[str, float]) -> None:
    for name, weight in weights.items():
        if name not in sizes:
            raise UserError(f"data mixture: {name!r} is not one of {', '.join(sorted(sizes)) or 'no sources'}")
        if not (np.isfinite(weight) and weight >= 0):
            raise UserError(f"data mixture: weight {weight} of {name!r}; expected a number of 0 or more")
        if weight > 0 and sizes[name] < 1:
            raise UserError(f"data mixture: {name!r} has no records; expected at least one")
    if not any(weight > 0 for weight in weights.values()):
        raise UserError(f"data mixture: {dict(weights)} has no positive weight; expected at least one")


@dataclass
class Mixture(Dataset[Any]):
    """Several sources under their names, read by `Place`; `make(record, place)` turns a record into an example.

    A record whose picture cannot be decoded, or that keeps nothing to train, is replaced by the next good one of its
    source, the same one every time; the example's `skipped` says how many were passed over.
    """

    sources: Mapping[str, Dataset[Any]]
    make: Callable[[Any, Place], Any]

    @property
    def sizes(self) -> dict[str, int]:
        """How many records each source has."""
        return {name: len(source) for name, source in self.sources.items()}  # type: ignore[arg-type]

    def __getitem__(self, place: Place) -> Any:
        source, size = self.sources[place.source], self.sizes[place.source]
        for skipped in range(size):
            position = (place.position + skipped) % size
            try:
                example = self.make(source[position], place._replace(position=position))
            except SkippedRecord:
                continue
            example.skipped = skipped
            return example
        raise UserError(f"data source {place.source!r}: none of its {size} records can be used")
