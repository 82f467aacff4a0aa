"""Multi-scale binary quantizer: features as ever finer maps of bits, with no codebook to learn.

A position's code is a corner of a cube on the unit sphere, ±1/√d in each of d channels (binary spherical quantization,
BSQ-ViT, arXiv 2406.07548, section 3.1); every scale quantizes what the scales before it left over (Infinity, arXiv
2412.04431, section 3.2). All arithmetic is in float32, because a rounded feature near zero is another bit.

Codes are integers (torch.long) of 0 and 1: (B, l, D) for one scale and (B, L, D) for all of them.

Legend: B batch, L tokens of all scales, l tokens of one scale, d channels of a map of features, D bits of a token (d,
or 4 d where it stands for 2 x 2 positions), H and W height and width of the features, h and w those of one scale's map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vargpt_lightning.models.core.exact import full_precision
from vargpt_lightning.models.core.scales import ScaleSchedule
from vargpt_lightning.models.tokenizer.quantizer import Change, map_to_rows, rows_to_map


class BitStep(NamedTuple):
    """What quantizing one scale gave.

    ``unit_Bdhw`` is what was left over, on the unit sphere; ``bits_BlD`` are its codes; ``added_BdHW`` is what they add
    to the features, with the gradient passed straight through.
    """

    unit_Bdhw: Tensor
    bits_BlD: Tensor
    added_BdHW: Tensor


@dataclass(frozen=True)
class BitQuantizer:
    """Binary spherical quantization, scale by scale. It has no weights.

    Args:
        channels: d, bits of a position.
        side: positions that a token has in each direction, 1 or 2. Of a 2 x 2 square, channel c at row y and column x
            is bit 4 c + 2 y + x of the token (`torch.nn.functional.pixel_unshuffle`).
    """

    channels: int
    side: int = 1

    @property
    def bits(self) -> int:
        """D, bits of a token."""
        return self.channels * self.side**2

    def embed(self, bits_D: Tensor) -> Tensor:
        """Return the codes' features, ±1/√d in float32, of bits in any shape."""
        return (2 * bits_D.float() - 1) * self.channels**-0.5

    def shape(self, schedule: ScaleSchedule, k: int) -> tuple[int, int]:
        """Return height and width of scale ``k``'s map of features, in positions."""
        height, width = schedule.shapes[k]
        return height * self.side, width * self.side

    def rows(self, h_Bdhw: Tensor) -> Tensor:
        """Read a map of features or bits as tokens (B, l, D)."""
        return map_to_rows(F.pixel_unshuffle(h_Bdhw, self.side) if self.side > 1 else h_Bdhw)

    def map(self, h_BlD: Tensor, shape: tuple[int, int]) -> Tensor:
        """Lay tokens out as a map (B, d, h, w); `shape` is that of the tokens."""
        h_BDhw = rows_to_map(h_BlD, shape)
        return F.pixel_shuffle(h_BDhw, self.side) if self.side > 1 else h_BDhw

    def empty(self, batch: int, schedule: ScaleSchedule, device: torch.device) -> Tensor:
        """Return the zeros (B, d, H, W) that codes are added to."""
        return torch.zeros(batch, self.channels, *self.shape(schedule, -1), device=device)

    def contribution(self, h_Bdhw: Tensor, final: tuple[int, int]) -> Tensor:
        """Return what a scale's codes add to the features: enlarged to their size (B, d, H, W)."""
        if h_Bdhw.shape[-2:] != final:
            h_Bdhw = F.interpolate(h_Bdhw, size=final, mode="bilinear")
        return h_Bdhw.contiguous()

    def steps(self, f_BdHW: Tensor, schedule: ScaleSchedule, change: Change | None = None) -> list[BitStep]:
        """Quantize features (B, d, H, W) scale by scale, each on what the coarser ones left over.

        A residual of exactly 0 is bit 0. For `change` see `quantizer.Change`.
        """
        rest_BdHW, final = f_BdHW.float().contiguous(), self.shape(schedule, -1)
        steps = []
        with full_precision(rest_BdHW):
            for k, shape in enumerate(schedule.shapes):
                own = self.shape(schedule, k)
                rest_Bdhw = rest_BdHW if own == final else F.interpolate(rest_BdHW, size=own, mode="area")
                unit_Bdhw = F.normalize(rest_Bdhw, dim=1)
                bits_BlD = self.rows((unit_Bdhw.detach() > 0).long())
                fed_BlD = bits_BlD if change is None else change(k, bits_BlD)
                code_Bdhw = self.map(self.embed(fed_BlD), shape)
                straight_Bdhw = unit_Bdhw + (code_Bdhw - unit_Bdhw).detach()
                added_BdHW = self.contribution(straight_Bdhw, final)
                rest_BdHW = rest_BdHW - added_BdHW.detach()
                steps.append(BitStep(unit_Bdhw, bits_BlD, added_BdHW))
        return steps

    def accumulate(
        self, k: int, f_hat_BdHW: Tensor, h_Bdhw: Tensor, schedule: ScaleSchedule
    ) -> tuple[Tensor, Tensor | None]:
        """Add scale ``k``'s codes; return the new f_hat and the next scale's input (B, l, D), at last None."""
        with full_precision(f_hat_BdHW):
            f_hat_BdHW = f_hat_BdHW + self.contribution(h_Bdhw.float(), self.shape(schedule, -1))
            last = k == schedule.num_scales - 1
            return f_hat_BdHW, None if last else self.next_input(k, f_hat_BdHW, schedule)

    def next_input(self, k: int, f_hat_BdHW: Tensor, schedule: ScaleSchedule) -> Tensor:
        """Return the input (B, l, D) of the scale after ``k``: the sum so far, resized to it."""
        return self.rows(self.contribution(f_hat_BdHW, self.shape(schedule, k + 1)))
