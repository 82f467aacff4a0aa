"""Random numbers, one a picture, that do not depend on how a global batch is spread over processes."""

from __future__ import annotations

import torch
from torch import Tensor


class RowDraws:
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

    def rand(self, count: int, device: torch.device) -> Tensor:
        """Return `count` even draws from [0, 1) on a device."""
        source = device if self.generator is None else self.generator.device
        every = torch.rand(self.before + self.own + self.after, device=source, generator=self.generator)
        kept = every[self.before : self.before + self.own][:count].to(device)
        return torch.cat([kept, kept.new_ones(count - len(kept))]) if len(kept) < count else kept


Draws = torch.Generator | RowDraws | None
"""Where the draws of a batch's pictures come from; None for torch's own stream."""


def draw(count: int, device: torch.device, draws: Draws) -> Tensor:
    """Return `count` even draws from [0, 1), one a picture, on a device."""
    if isinstance(draws, RowDraws):
        return draws.rand(count, device)
    source = device if draws is None else draws.device
    return torch.rand(count, device=source, generator=draws).to(device)
