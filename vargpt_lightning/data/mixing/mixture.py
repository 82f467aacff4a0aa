"""Which records make which batch: several sources mixed by weight or by count, a pure function of seed and step."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np
from torch.utils.data import Dataset, Sampler

from vargpt_lightning.data.mixing.schedule import WINDOW, block_order
from vargpt_lightning.data.mixing.spec import MixtureSpec
from vargpt_lightning.utils.errors import UserError


class Records(Protocol):
    """A source's records by their position."""

    def __len__(self) -> int: ...

    def __getitem__(self, position: int, /) -> Any: ...


class Place(NamedTuple):
    """One draw of a mixture: a record of a source, in its how-manieth shuffled walk through the source."""

    source: str
    position: int
    epoch: int


class SkippedRecord(Exception):
    """A record that cannot be used in training: a picture that is none, or nothing left to train."""


class MixtureBatchSampler(Sampler[list[Place]]):
    """One rank's batches of places; batch n depends on the mixture, the number of batches, the seed and n alone.

    Every source is walked in shuffled epochs of its own. Sources in `shards` (name to records of each shard) are
    shuffled by blocks of `window` shards (see `block_order`).
    Raises UserError for a rank outside the world.
    """

    def __init__(
        self,
        spec: MixtureSpec,
        *,
        steps: int,
        start_step: int = 0,
        seed: int = 0,
        rank: int = 0,
        shards: Mapping[str, Sequence[int]] | None = None,
        window: int = WINDOW,
    ) -> None:
        if not 0 <= rank < spec.world_size:
            raise UserError(f"rank {rank} of {spec.world_size}; expected a rank below")
        self.spec, self.steps, self.start_step, self.seed, self.rank = spec, steps, start_step, seed, rank
        self._shards, self._window = dict(shards or {}), window
        self._groups, self._inside = spec.schedules(steps, seed)
        self._permutation = lru_cache(maxsize=2 * len(spec.used))(self._permute)

    def __len__(self) -> int:
        return max(0, self.steps - self.start_step)

    def __iter__(self) -> Iterator[list[Place]]:
        return (self.batch(step) for step in range(self.start_step, self.steps))

    def batch(self, step: int) -> list[Place]:
        """Return this rank's places of a step."""
        group, before = self._groups.at(step)
        rows = self.spec.global_batch(group)
        size = rows // self.spec.world_size
        first = before * rows + self.rank * size
        return [self._place(*self._inside[group].at(slot)) for slot in range(first, first + size)]

    def draws(self, step: int) -> dict[str, int]:
        """Return how many samples of each source all ranks together have drawn before a step."""
        found: dict[str, int] = {}
        for group, batches in self._groups.before(step).items():
            found |= self._inside[group].before(batches * self.spec.global_batch(group))
        return found

    def _place(self, source: str, draw: int) -> Place:
        epoch, drawn = divmod(draw, self.spec.sizes[source])
        return Place(source, int(self._permutation(source, epoch)[drawn]), epoch)

    def _permute(self, source: str, epoch: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, zlib.crc32(source.encode()), epoch])
        return block_order(self._shards.get(source, [self.spec.sizes[source]]), self._window, rng)


class Part(Dataset[Any]):
    """At most `count` records of a source, chosen by the seed: fewer are a part of more, in the source's order."""

    def __init__(self, source: Records, count: int, seed: int) -> None:
        self.source = source
        size = len(source)
        self.positions = np.sort(np.random.default_rng(seed).permutation(size)[:count])

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, position: int) -> Any:
        return self.source[int(self.positions[position])]


@dataclass
class Mixture(Dataset[Any]):
    """Several sources under their names, read by `Place`; `make(record, place)` turns a record into an example.

    A record whose picture cannot be decoded, or that keeps nothing to train, is replaced by the next good one of its
    source, the same one every time; the example's `skipped` says how many were skipped.
    """

    sources: Mapping[str, Records]
    make: Callable[[Any, Place], Any]

    @property
    def sizes(self) -> dict[str, int]:
        """How many records each source has."""
        return {name: len(source) for name, source in self.sources.items()}

    def __getitem__(self, place: Place) -> Any:
        source = self.sources[place.source]
        size, first = len(source), ""
        for skipped in range(size):
            position = (place.position + skipped) % size
            try:
                example = self.make(source[position], place._replace(position=position))
            except SkippedRecord as error:
                first = first or str(error)
                continue
            example.skipped = skipped
            return example
        raise UserError(f"data source {place.source!r}: none of its {size} records can be used; the first: {first}")

    def __getitems__(self, places: Sequence[Place]) -> list[Any]:
        """Return the examples of a batch; storage that can is told first what will be read."""
        for name in dict.fromkeys(place.source for place in places):
            if prefetch := getattr(self.sources[name], "will_need", None):
                prefetch([place.position for place in places if place.source == name])
        return [self[place] for place in places]
