"""Learned positions of visual tokens, for maps of other shapes too.

Shapes: l tokens of one scale, L of all scales, C width, h and w height and width of a map.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vargpt_lightning.models.core.scales import ScaleSchedule
from vargpt_lightning.models.tokenizer.quantizer import map_to_rows, rows_to_map


def resized_rows(rows_1lC: Tensor, shape: tuple[int, int], wanted: tuple[int, int]) -> Tensor:
    """Return a map's learned rows (1, l, C) for a map of another shape, bilinearly."""
    if shape == wanted:
        return rows_1lC
    return map_to_rows(F.interpolate(rows_to_map(rows_1lC, shape), size=wanted, mode="bilinear"))


def positions_of(k: int, rows_1LC: Tensor, learned: ScaleSchedule, wanted: ScaleSchedule) -> Tensor:
    """Return the rows (1, l, C) of scale k of a schedule, from those (1, L, C) that were learned for another."""
    return resized_rows(rows_1LC[:, learned.slices[k]], learned.shapes[k], wanted.shapes[k])


def all_positions(rows_1LC: Tensor, learned: ScaleSchedule, wanted: ScaleSchedule) -> Tensor:
    """Return the rows (1, L, C) of all scales of a schedule, as `positions_of` makes them."""
    if wanted == learned:
        return rows_1LC
    return torch.cat([positions_of(k, rows_1LC, learned, wanted) for k in range(wanted.num_scales)], dim=1)
