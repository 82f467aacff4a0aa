"""Two-dimensional rotary embedding of token maps: all scales of a picture on one grid (Infinity, arXiv 2412.04431).

Channels of a head are rotated in pairs (2p, 2p + 1): the first half of the pairs by a token's row, the second by its
column.

Legend: B pictures, H heads, L tokens of all scales, l those given, E width of a head, P = E / 2 pairs.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from vargpt_lightning.models.core.aspect_ratios import Shape
from vargpt_lightning.models.core.scales import ScaleSchedule

RotaryMode = Literal["scaled", "interpolated", "plain"]
"""How a small map lies on the grid: "scaled": its rows and columns spread over the grid's; "interpolated": cosines and
sines of the longest grid, bilinearly resized; "plain": in the grid's corner (modes 2, 1 and 0 of the authors' code)."""

BASE = 10_000.0
LONGEST = 128
"""Side of the grid that "interpolated" begins with, whatever the picture's."""


def positions(shape: Shape, grid: Shape, device: torch.device | str | None = None) -> tuple[Tensor, Tensor]:
    """Return the grid's rows of a map's rows, and its columns of the map's columns; halves are rounded to even ones."""
    along = [
        (torch.arange(side, device=device) * (whole / side)).round().int()
        for side, whole in zip(shape, grid, strict=True)
    ]
    return along[0], along[1]


def rotary_table(
    schedule: ScaleSchedule,
    grid: Shape,
    head_width: int,
    mode: RotaryMode = "scaled",
    device: torch.device | str | None = None,
) -> Tensor:
    """Return cosines and sines (2, L, P), in float32, of the angles of all tokens.

    Args:
        grid: height and width of the grid that the maps lie on.
        head_width: E, a multiple of 4.
    """
    half = head_width // 2
    steps = torch.arange(0, half, 2, device=device, dtype=torch.int64).float()
    rates = 1.0 / (BASE ** (steps / half))
    if mode == "interpolated":
        resized = _resized(schedule, grid, rates)
        return torch.cat(resized, dim=1)
    maps = [
        _angles(*(positions(shape, grid, device) if mode == "scaled" else positions(shape, shape, device)), rates)
        for shape in schedule.shapes
    ]
    angles_LP = torch.cat([angles_hwP.flatten(0, 1) for angles_hwP in maps])
    return torch.stack((angles_LP.cos(), angles_LP.sin()))


def _angles(rows_h: Tensor, columns_w: Tensor, rates: Tensor) -> Tensor:
    """Angles (h, w, P) of a map's tokens."""
    down = torch.outer(rows_h.type_as(rates), rates)
    across = torch.outer(columns_w.type_as(rates), rates)
    height, width = len(rows_h), len(columns_w)
    return torch.cat((down[:, None].expand(-1, width, -1), across[None].expand(height, -1, -1)), dim=-1)


def _resized(schedule: ScaleSchedule, grid: Shape, rates: Tensor) -> list[Tensor]:
    """Cosines and sines (2, l, P) of each map."""
    # in this order of operations, since the result is cut
    whole = [int(LONGEST / max(grid) * side) if side < max(grid) else LONGEST for side in grid]
    rows, columns = (torch.arange(side, device=rates.device) for side in whole)
    angles_hwP = _angles(rows, columns, rates)
    table_2Phw = torch.stack((angles_hwP.cos(), angles_hwP.sin())).permute(0, 3, 1, 2)
    return [
        F.interpolate(table_2Phw, size=shape, mode="bilinear", align_corners=True).permute(0, 2, 3, 1).flatten(1, 2)
        for shape in schedule.shapes
    ]


def rotate(x_BHlE: Tensor, table_2lP: Tensor) -> Tensor:
    """Turn queries or keys by their tokens' angles."""
    even, odd = x_BHlE.unflatten(-1, (-1, 2)).unbind(-1)
    cos_lP, sin_lP = table_2lP
    return torch.stack((cos_lP * even - sin_lP * odd, sin_lP * even + cos_lP * odd), dim=-1).flatten(-2)
