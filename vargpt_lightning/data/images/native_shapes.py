"""Pictures in their own shape, as strips of patches: SigLIP 2 NaFlex's and Qwen2-VL's way.

A picture is resized to a grid of patches near its own shape, of no more tokens than there are places for it, and its
patches are laid side by side in the order in which the family's processor gives them. So all pictures have one shape. A
fourth channel marks what is there: 1 in the first, third, ... row of tokens, 2 in the others, 0 behind the last.

Shape suffixes: H height, W width, C colours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from vargpt_lightning.data.images.picture_files import PictureError

Grid = tuple[int, int]
_LEAST = 4
"""Tokens that Qwen2-VL makes of a small picture."""
_LONGEST = 200
"""Times that a picture may be longer than wide for it."""


def naflex_grid(height: int, width: int, patch: int, tokens: int) -> Grid:
    """Return rows and columns of patches as SigLIP 2's NaFlex processor does: as many as `tokens` allows.

    The scale is found by halving, to 1e-5; sides are rounded up to whole patches.
    """
    low, high = 1e-5 / 10, 100.0
    while high - low >= 1e-5:
        scale = (low + high) / 2
        rows, columns = (max(1, math.ceil(side * scale / patch)) for side in (height, width))
        low, high = (scale, high) if rows * columns <= tokens else (low, scale)
    rows, columns = (max(1, math.ceil(side * low / patch)) for side in (height, width))
    return rows, columns


def qwen2_vl_grid(height: int, width: int, patch: int, tokens: int) -> Grid:
    """Return rows and columns of tokens, of 2 x 2 patches each, as Qwen2-VL's processor does.

    The picture keeps about its size where that is between 4 and `tokens` tokens. What is so long that the processor
    would exceed them is made shorter.

    Raises:
        PictureError: it is more than 200 times as long as wide.
    """
    if max(height, width) > _LONGEST * min(height, width):
        raise PictureError(f"picture of {width} x {height} pixels: expected at most {_LONGEST} times as long as wide")
    side = 2 * patch
    rows, columns = round(height / side), round(width / side)
    if rows * columns > tokens:
        shrink = math.sqrt(height * width / (tokens * side**2))
        rows, columns = (max(1, math.floor(length / shrink / side)) for length in (height, width))
    elif rows * columns < _LEAST:
        grow = math.sqrt(_LEAST * side**2 / (height * width))
        rows, columns = (math.ceil(length * grow / side) for length in (height, width))
    while rows * columns > tokens:
        rows, columns = (rows - 1, columns) if rows > columns else (rows, columns - 1)
    return rows, columns


@dataclass(frozen=True)
class NativeFit:
    """One family's way.

    Args:
        grid: rows and columns of tokens, from height, width, a patch's side and the most tokens.
        filter: Pillow's, for resizing.
        merge: patches a side of a token.
    """

    grid: Callable[[int, int, int, int], Grid]
    filter: Image.Resampling
    merge: int = 1


NATIVE_FITS: Mapping[str, NativeFit] = {
    "naflex": NativeFit(naflex_grid, Image.Resampling.BILINEAR),
    "qwen2_vl": NativeFit(qwen2_vl_grid, Image.Resampling.BICUBIC, merge=2),
}


def fitted(image: Image.Image, fit: str, patch: int, tokens: int) -> Image.Image:
    """Return an RGB picture resized to whole tokens; raises PictureError for one too long."""
    how = NATIVE_FITS[fit]
    rows, columns = how.grid(image.height, image.width, patch, tokens)
    side = patch * how.merge
    return image.resize((columns * side, rows * side), how.filter)


def strip(pixels_HWC: np.ndarray, fit: str, patch: int, tokens: int) -> np.ndarray:
    """Return a fitted picture (H, W, 3) as its strip: (patch, places x patch, 4), uint8."""
    merge = NATIVE_FITS[fit].merge
    rows, columns = (length // (patch * merge) for length in pixels_HWC.shape[:2])
    blocks = pixels_HWC.reshape(rows, merge, patch, columns, merge, patch, 3).transpose(2, 0, 3, 1, 4, 5, 6)
    length = rows * columns * merge**2 * patch
    found = np.zeros((patch, tokens * merge**2 * patch, 4), np.uint8)
    found[:, :length, :3] = blocks.reshape(patch, length, 3)
    found[:, :length, 3] = np.repeat(1 + np.arange(rows) % 2, length // rows)
    return found


def picture_of(strip_HWC: np.ndarray, fit: str) -> np.ndarray:
    """Return the picture (H, W, 3) that a strip is of."""
    patch, merge = len(strip_HWC), NATIVE_FITS[fit].merge
    marks = strip_HWC[0, :: patch * merge**2, 3]
    count = int((marks > 0).sum())
    columns = int(np.argmax(marks[:count] == 2)) or count
    rows = count // columns
    blocks = strip_HWC[:, : count * merge**2 * patch, :3].reshape(patch, rows, columns, merge, merge, patch, 3)
    return blocks.transpose(1, 3, 0, 2, 4, 5, 6).reshape(rows * merge * patch, columns * merge * patch, 3)
