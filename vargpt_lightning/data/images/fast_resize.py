"""Decoded pictures made square by torch's resizing of bytes, which takes a third of Pillow's time.

The filter is Pillow's (bicubic, with antialiasing) with weights of fewer bits: a level differs by 1 at most, about one
in three hundred.

Shape suffixes: H height, W width, C colours.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

LONGEST = 8192  # longer pictures are rare, and Pillow's


def fit_fast(pixels_HWC: np.ndarray, size: int, fit: str, mean: Sequence[float]) -> np.ndarray | None:
    """Return RGB pixels, uint8, fitted to `size` x `size` as `PictureReader` does; None where Pillow must do it.

    That is for VAR's crops (Lanczos), for means over whole pixels, for pictures of more than 8,192 pixels a side, and
    for resize modes of which it has none.
    """
    height, width = pixels_HWC.shape[:2]
    if fit not in ("pad", "crop", "clip", "llava", "siglip") or max(height, width) > LONGEST:
        return None
    if fit == "siglip":
        return _resized(pixels_HWC, size, size)
    if fit in ("pad", "llava"):
        pixels_HWC = _padded(pixels_HWC, 1.0 if fit == "pad" else np.array(mean))
    elif fit == "crop":
        pixels_HWC = _middle(pixels_HWC, min(height, width))
    if fit in ("pad", "crop"):
        side = len(pixels_HWC)
        return None if side % size == 0 else _resized(pixels_HWC, size, size)
    height, width = pixels_HWC.shape[:2]
    long = size * max(height, width) // min(height, width)
    if long > LONGEST:
        return None
    pixels_HWC = _resized(pixels_HWC, *((size, long) if height <= width else (long, size)))
    top, left = (pixels_HWC.shape[0] - size) // 2, (pixels_HWC.shape[1] - size) // 2
    return pixels_HWC[top : top + size, left : left + size]


def _middle(pixels_HWC: np.ndarray, side: int) -> np.ndarray:
    top, left = (-((side - length) // 2) for length in pixels_HWC.shape[:2])
    return pixels_HWC[top : top + side, left : left + side]


def _padded(pixels_HWC: np.ndarray, ground: float | np.ndarray) -> np.ndarray:
    height, width = pixels_HWC.shape[:2]
    side = max(height, width)
    square = np.empty((side, side, 3), np.uint8)
    square[:] = np.asarray(ground * 255).astype(np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = pixels_HWC
    return square


def _resized(pixels_HWC: np.ndarray, height: int, width: int) -> np.ndarray:
    if pixels_HWC.shape[:2] == (height, width):
        return pixels_HWC
    levels_1CHW = torch.from_numpy(pixels_HWC).movedim(-1, 0)[None]
    found = torch.nn.functional.interpolate(levels_1CHW, (height, width), mode="bicubic", antialias=True)
    return found[0].movedim(0, -1).numpy()
