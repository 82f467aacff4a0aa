"""What data are mixed of, by weight, by count or by passes, and how many batches that makes. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Literal

import numpy as np

from vargpt_lightning.data.mixing.schedule import Schedule, covering, shares
from vargpt_lightning.utils.errors import UserError

MixBy = Literal["weights", "counts", "passes"]
_ROUND = 1000  # slots in which the weights are met exactly


@dataclass(frozen=True)
class MixtureSpec:
    """What is mixed, and how it is put into batches.

    Attributes:
        sizes: records of each source.
        values: what each source has of the mixture; sources with 0 or that are not named have none.
        by: what the values are: "weights" are shares of samples; "counts" are samples an epoch, drawn in turn, a source
            that is smaller than its count being walked again and again; "passes" are counts in sizes of the source.
        batch_size: rows of a batch of one rank.
        world_size: ranks, which take disjoint parts of each step's global batch of `batch_size * world_size`.
        groups: source name to group name: each batch comes from one group alone, since batches of records alike in
            length waste less padding. None makes one group of all.
        batch_sizes: batch sizes of groups that have another than `batch_size`. By weights, the values of sources in
            different groups then are shares of batches.

    Raises:
        UserError: a value is negative or names no source, none is positive, an empty source has one, a count is no
            whole number, or batches are empty.
    """

    sizes: Mapping[str, int]
    values: Mapping[str, float]
    by: MixBy = "weights"
    batch_size: int = 1
    world_size: int = 1
    groups: Mapping[str, str] | None = None
    batch_sizes: Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.world_size < 1:
            raise UserError(f"batch_size {self.batch_size}, {self.world_size} ranks; expected at least 1 of each")
        _check_mixture(self.sizes, self.values, self.by)

    @property
    def used(self) -> dict[str, float]:
        """The values above 0."""
        return {name: value for name, value in self.values.items() if value > 0}

    @property
    def epoch(self) -> dict[str, int]:
        """Samples of each source that an epoch has: as many as there are records where sources are mixed by weight."""
        if self.by == "counts":
            return {name: int(value) for name, value in self.used.items()}
        if self.by == "passes":
            return {name: max(1, round(value * self.sizes[name])) for name, value in self.used.items()}
        samples = sum(self.sizes[name] for name in self.used)
        return {name: round(value / sum(self.used.values()) * samples) for name, value in self.used.items()}

    def group(self, source: str) -> str:
        """The group of a source."""
        return self.groups.get(source, source) if self.groups else ""

    def global_batch(self, group: str) -> int:
        """Rows of a group's batch on all ranks together."""
        return (self.batch_sizes or {}).get(group, self.batch_size) * self.world_size

    def members(self) -> dict[str, dict[str, float]]:
        """The used sources of each group, with their values (by weights) or their samples an epoch."""
        found: dict[str, dict[str, float]] = {}
        for name, value in (self.used if self.by == "weights" else self.epoch).items():
            found.setdefault(self.group(name), {})[name] = value
        return found

    def needed(self) -> dict[str, Fraction]:
        """Batches of each group that an epoch fills, not always a whole number."""
        sums = {group: sum(map(int, inside.values())) for group, inside in self.members().items()}
        return {group: Fraction(samples, self.global_batch(group)) for group, samples in sums.items()}

    def batches(self, epochs: float) -> int:
        """Return the batches of each rank that so many epochs have; those that are not full are counted.

        They are filled up with what the next epoch begins with, so that all batches are full, every rank has the same
        number of them, and nothing is left out.
        """
        rounds = Fraction(str(epochs))  # 0.1 is a tenth, not the number next to it
        if self.by == "weights":
            samples = rounds * sum(self.sizes[name] for name in self.used)
            return max(1, ceil(samples / (self.batch_size * self.world_size)))
        return max(1, sum(ceil(rounds * need) for need in self.needed().values()))

    def schedules(self, batches: int, seed: int) -> tuple[Schedule, dict[str, Schedule]]:
        """Return the order of the groups over the batches, and of the sources over each group's slots."""
        members = self.members()
        if self.by == "weights":
            groups = shares({group: sum(inside.values()) for group, inside in members.items()}, _ROUND)
            return Schedule(groups, seed), {
                group: Schedule(shares(inside, _ROUND), seed + 1) for group, inside in members.items()
            }
        counts = covering(self.needed(), max(1, batches))
        rounds = {group: {name: int(value) for name, value in inside.items()} for group, inside in members.items()}
        return Schedule(counts, seed), {group: Schedule(inside, seed + 1) for group, inside in rounds.items()}


def _check_mixture(sizes: Mapping[str, int], values: Mapping[str, float], by: str) -> None:
    kind = {"weights": "weight", "counts": "count", "passes": "number of passes"}[by]
    for name, value in values.items():
        if name not in sizes:
            raise UserError(f"data mixture: {name!r} is not one of {', '.join(sorted(sizes)) or 'no sources'}")
        if not (np.isfinite(value) and value >= 0):
            raise UserError(f"data mixture: {kind} {value} of {name!r}; expected a number of 0 or more")
        if by == "counts" and value != int(value):
            raise UserError(f"data mixture: count {value} of {name!r}; expected a whole number of samples an epoch")
        if value > 0 and sizes[name] < 1:
            raise UserError(f"data mixture: {name!r} has no records; expected at least one")
    if not any(value > 0 for value in values.values()):
        raise UserError(f"data mixture: {dict(values)} has no positive {kind}; expected at least one")
