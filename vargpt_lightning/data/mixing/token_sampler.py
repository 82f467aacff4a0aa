"""A mixture's order put into batches by token count, window by window."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch.utils.data import Sampler

from vargpt_lightning.data.mixing.batching import Indices, packed_batches, token_batches
from vargpt_lightning.data.mixing.mixture import Place
from vargpt_lightning.utils.errors import UserError

RECORDS = 16384  # of a window, at most
Draw = Callable[[int], Sequence[Place]]


def window_records(samples: int) -> int:
    """Return how many records a window has so that an epoch of so many samples has whole windows, nearly."""
    return -(-samples // -(-samples // RECORDS))


@dataclass(frozen=True)
class TokenPlan:
    """How records become batches.

    Args:
        max_tokens: of a batch, padding included.
        row_tokens: of a row of several records; None puts one record in a row, like lengths together.
    """

    max_tokens: int
    row_tokens: int | None = None

    def batches(self, lengths: ArrayLike, seed: Sequence[int]) -> list[Indices]:
        """Return the batches of one window, shuffled."""
        everything = max(1, len(np.asarray(lengths)))
        if self.row_tokens is None:
            return token_batches(lengths, self.max_tokens, seed=seed, window=everything)
        return packed_batches(lengths, self.max_tokens, self.row_tokens, seed=seed, window=everything)


class TokenBatchSampler(Sampler[list[Place]]):
    """One rank's batches of places by token count; batch n depends on the order, the plan, the seed and n alone.

    `draw(w)` returns the records of window w of an endless order, all of a window's ranks together; what a window holds
    becomes whole batches, each record in one. The ranks take turns at the batches, window after window, so that all of
    them have as many as are asked for. `lengths` are the records' tokens by source (see `record_lengths`). Where
    sources have `groups`, by name, no batch has records of two of them.
    Raises UserError for a rank outside the world.
    """

    def __init__(
        self,
        draw: Draw,
        lengths: Mapping[str, NDArray[Any]],
        plan: TokenPlan,
        *,
        steps: int = 0,
        start_step: int = 0,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        groups: Mapping[str, int] | None = None,
    ) -> None:
        if not 0 <= rank < world_size:
            raise UserError(f"rank {rank} of {world_size}; expected a rank below")
        self.draw, self.lengths, self.plan = draw, lengths, plan
        self.steps, self.start_step, self.seed = steps, start_step, seed
        self.rank, self.world_size, self.groups = rank, world_size, dict(groups or {})
        self._window = lru_cache(maxsize=2)(self._make_window)

    def __len__(self) -> int:
        return max(0, self.steps - self.start_step)

    def __iter__(self) -> Iterator[list[Place]]:
        window, before = 0, 0
        for step in range(self.start_step, self.steps):
            number = step * self.world_size + self.rank
            while number >= before + len(self._window(window)[1]):
                before += len(self._window(window)[1])
                window += 1
            places, batches = self._window(window)
            yield [places[place] for place in batches[number - before]]

    def batches_of(self, windows: int) -> int:
        """Return how many batches all ranks together have of the first windows."""
        return sum(len(self._window(window)[1]) for window in range(windows))

    def draws(self, step: int) -> dict[str, int]:
        """Return how many samples of each source all ranks together have drawn before a step."""
        found: Counter[str] = Counter()
        window, left = 0, step * self.world_size
        while left > 0:
            places, batches = self._window(window)
            found.update(places[place].source for batch in batches[:left] for place in batch)
            left -= len(batches)
            window += 1
        return dict(found)

    def _make_window(self, window: int) -> tuple[Sequence[Place], list[Indices]]:
        places = self.draw(window)
        lengths_N = np.array([self.lengths[place.source][place.position] for place in places])
        seed = [self.seed, window]
        if len(set(self.groups.values())) < 2:
            return places, self.plan.batches(lengths_N, seed)
        group_N = np.array([self.groups[place.source] for place in places])
        batches = []
        for group in np.unique(group_N):
            own = np.flatnonzero(group_N == group)
            batches += [own[batch] for batch in self.plan.batches(lengths_N[own], [*seed, int(group)])]
        return places, [batches[place] for place in np.random.default_rng(seed).permutation(len(batches))]
