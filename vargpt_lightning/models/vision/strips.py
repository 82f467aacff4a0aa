"""Pictures in their own shape, as the data give them: strips of patches whose fourth channel marks rows of tokens.

Legend: P seen pictures, N tokens of a picture, M patches a token has, S side of a patch, C colours.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Strips(NamedTuple):
    """What is told by the strips of some pictures.

    Attributes:
        patches_PNSSC: the patches in their order, N x M of them; those behind the last are zeros.
        rows_PN, columns_PN: where each token stands.
        height_P, width_P: rows and columns of tokens.
        valid_PN: whether it is one of the picture's; the first is always.
    """

    patches_PNSSC: Tensor
    rows_PN: Tensor
    columns_PN: Tensor
    height_P: Tensor
    width_P: Tensor
    valid_PN: Tensor

    @classmethod
    def read(cls, strips_P4SW: Tensor, merged: int = 1) -> Strips:
        """Return what strips (P, 4, S, N x M x S) tell; a token has `merged` patches. Nothing depends on their values
        but values, so it is also read on the meta device.
        """
        side = strips_P4SW.shape[2]
        marks_PN = strips_P4SW[:, 3, 0, :: side * merged]
        count_P = (marks_PN > 0).sum(1).clamp_min(1)
        width_P = (marks_PN == 1).long().cumprod(1).sum(1).clamp_min(1)  # of the first row
        index_PN = torch.arange(marks_PN.shape[1], device=strips_P4SW.device).expand_as(marks_PN)
        patches_PNSSC = strips_P4SW[:, :3].unflatten(3, (-1, side)).permute(0, 3, 2, 4, 1)
        return cls(
            patches_PNSSC,
            index_PN // width_P[:, None],
            index_PN % width_P[:, None],
            count_P // width_P,
            width_P,
            index_PN < count_P[:, None],
        )

    def mask(self, merged: int = 1) -> Tensor:
        """Return which patches all see, (P, 1, N x M, N x M)."""
        seen_PN = self.valid_PN.repeat_interleave(merged, 1)
        return seen_PN[:, None, None].expand(-1, 1, seen_PN.shape[1], -1)
