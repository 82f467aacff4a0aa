"""Random numbers, one a picture, that do not depend on how a global batch is spread over processes.

They are float32 whatever the default type is: 16 bits have 256 steps from 0 to 1, and a rate of 0.1 is another.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class RankInvariantRng:
    """Draws for the pictures of the whole global batch, of which this process keeps those of its own.

    All processes draw from streams that stand at the same place, so that together they have the numbers that one
    process with all the pictures would have drawn.

    Args:
        before: pictures of the processes that come before this one.
        own: pictures of this process; what is asked for beyond them gets ones, which drop nothing.
        after: pictures of the processes behind this one.
        generator: the stream; None for torch's own.
    """

    def __init__(self, before: int, own: int, after: int, generator: torch.Generator | None = None) -> None:
        self.before, self.own, self.after = before, own, after
        self.generator = generator

    def rand(self, wanted: int, device: torch.device) -> Tensor:
        """Return `wanted` even draws from [0, 1) on a device."""
        source = device if self.generator is None else self.generator.device
        count = self.before + self.own + self.after
        every = torch.rand(count, dtype=torch.float32, device=source, generator=self.generator)
        kept = every[self.before : self.before + self.own][:wanted].to(device)
        return torch.cat([kept, kept.new_ones(wanted - len(kept))]) if len(kept) < wanted else kept

    def shared(self, wanted: int, device: torch.device) -> Tensor:
        """Return `wanted` even draws from [0, 1) that are the same in all processes."""
        source = device if self.generator is None else self.generator.device
        return torch.rand(wanted, dtype=torch.float32, device=source, generator=self.generator).to(device)


class RowStreams:
    """A stream for each picture of a batch, so that what it draws does not depend on the others beside it.

    Args:
        seeds: one a picture; what is asked for beyond them gets ones, which drop and change nothing.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self.streams = [torch.Generator().manual_seed(seed) for seed in seeds]

    def rand(self, wanted: int, device: torch.device, each: int = 1) -> Tensor:
        """Return even draws from [0, 1) of every picture: (wanted, each)."""
        if device.type == "meta":  # where there are no numbers, only their room is asked for
            return torch.rand(wanted, each, device=device)
        drawn = [torch.rand(each, dtype=torch.float32, generator=stream) for stream in self.streams[:wanted]]
        drawn += [torch.ones(each)] * (wanted - len(drawn))
        return torch.stack(drawn).to(device)


Draws = torch.Generator | RankInvariantRng | RowStreams | None
"""Where the draws of a batch's pictures come from; None for torch's own stream."""


def draw(count: int, device: torch.device, draws: Draws) -> Tensor:
    """Return `count` even draws from [0, 1), one a picture, on a device."""
    if isinstance(draws, RowStreams):
        return draws.rand(count, device)[:, 0]
    if isinstance(draws, RankInvariantRng):
        return draws.rand(count, device)
    source = device if draws is None else draws.device
    return torch.rand(count, dtype=torch.float32, device=source, generator=draws).to(device)


def draw_shared(count: int, pictures: int, device: torch.device, draws: Draws) -> Tensor:
    """Return `count` even draws from [0, 1) for the whole global batch, (1, count), or each picture's, (B, count)."""
    if isinstance(draws, RowStreams):
        return draws.rand(pictures, device, count)
    if isinstance(draws, RankInvariantRng):
        return draws.shared(count, device)[None]
    return draw(count, device, draws)[None]
