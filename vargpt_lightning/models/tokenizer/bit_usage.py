"""How much each bit of each scale is used.

Legend: S scales, D bits of a token, B batch, l tokens of one scale.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor


class BitCounts:
    """Counts of ones since the last reset, over all processes, per scale and bit.

    Args:
        scales: S.
        bits: D.
    """

    def __init__(self, scales: int, bits: int) -> None:
        self.ones_SD = torch.zeros(scales, bits, dtype=torch.int64)
        self.seen_S = torch.zeros(scales, dtype=torch.int64)

    @torch.no_grad()
    def record(self, steps: Sequence[Tensor]) -> None:
        """Count a batch's bits, (B, l, D) of each scale."""
        found_SD = torch.stack([bits_BlD.sum(dim=(0, 1)) for bits_BlD in steps])
        seen_S = torch.tensor([bits_BlD.shape[0] * bits_BlD.shape[1] for bits_BlD in steps], device=found_SD.device)
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(found_SD)
            dist.all_reduce(seen_S)
        self.ones_SD = self.ones_SD.to(found_SD.device) + found_SD
        self.seen_S = self.seen_S.to(found_SD.device) + seen_S

    def used_SD(self) -> Tensor:
        """Return the entropy of each bit, (S, D), in percent: 100 where half are ones, 0 where all are the same.

        All are 0 before anything is counted.
        """
        share_SD = self.ones_SD.double() / self.seen_S.clamp_min(1)[:, None]
        nats_SD = torch.special.entr(share_SD) + torch.special.entr(1 - share_SD)
        return (nats_SD / torch.log(torch.tensor(2.0)) * 100).float()

    def reset(self) -> None:
        """Begin to count anew."""
        self.ones_SD, self.seen_S = torch.zeros_like(self.ones_SD), torch.zeros_like(self.seen_S)

    def plain(self) -> list[list[int]]:
        """Return the counts as plain numbers: tokens seen by scale, then ones by bit of each scale."""
        return [self.seen_S.tolist(), *self.ones_SD.tolist()]

    def take(self, plain: Sequence[Sequence[int]]) -> None:
        """Go on from what `plain` returned."""
        self.seen_S, self.ones_SD = torch.tensor(plain[0]), torch.tensor(plain[1:])
