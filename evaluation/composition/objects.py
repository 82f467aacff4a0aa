"""The things in a picture: connected regions of ink on a white ground.

Shapes: H, W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

INK = 48  # of 255: how far from white a pixel's darkest channel must be
LEAST_AREA = 0.006  # of the picture; less is a speck
NEAR = 1 / 64  # of the picture's side: parts with a smaller gap are one thing
_REACH = np.ones((3, 3), bool)


@dataclass(frozen=True)
class Region:
    """One thing's pixels: a mask over the whole picture (H, W), and its box as top, bottom, left, right."""

    mask_HW: npt.NDArray[np.bool_]
    box: tuple[int, int, int, int]

    @property
    def centre(self) -> tuple[float, float]:
        """The middle of the box as x and y, in pixels."""
        top, bottom, left, right = self.box
        return (left + right) / 2, (top + bottom) / 2


def regions(pixels_HW3: npt.NDArray[np.uint8]) -> list[Region]:
    """Return the things of a picture, from left to right; parts of less than `LEAST_AREA` are left out."""
    from scipy import ndimage

    ink_HW = pixels_HW3.min(axis=2) < 255 - INK
    near = max(0, round(NEAR * len(ink_HW)))
    joined_HW = ndimage.binary_closing(np.pad(ink_HW, near + 1), _REACH, iterations=near) if near else np.pad(ink_HW, 1)
    joined_HW = joined_HW[near + 1 : -near - 1, near + 1 : -near - 1] if near else joined_HW[1:-1, 1:-1]
    labels_HW, count = ndimage.label(joined_HW | ink_HW, _REACH)
    found = []
    for number in range(1, count + 1):
        mask_HW = (labels_HW == number) & ink_HW
        if mask_HW.sum() >= LEAST_AREA * mask_HW.size:
            rows, columns = np.nonzero(mask_HW)
            box = int(rows.min()), int(rows.max()) + 1, int(columns.min()), int(columns.max()) + 1
            found.append(Region(mask_HW, box))
    return sorted(found, key=lambda region: region.box[2])


def cut_out(pixels_HW3: npt.NDArray[np.uint8], region: Region, margin: float = 0.1) -> Image.Image:
    """Return a thing alone on white, in the middle of a square that is larger than it by `margin` on each side."""
    top, bottom, left, right = region.box
    alone_HW3 = np.where(region.mask_HW[..., None], pixels_HW3, 255).astype(np.uint8)[top:bottom, left:right]
    height, width = bottom - top, right - left
    side = round(max(height, width) * (1 + 2 * margin))
    square_SS3 = np.full((side, side, 3), 255, np.uint8)
    y, x = (side - height) // 2, (side - width) // 2
    square_SS3[y : y + height, x : x + width] = alone_HW3
    return Image.fromarray(square_SS3)
