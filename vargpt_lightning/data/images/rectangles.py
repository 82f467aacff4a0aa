"""Pictures fitted to a height and a width, for sizes of drawn pictures that are no squares.

The resize modes are those of squares: "crop" and "pad" (see `pictures.make_square`), and "var" (`resize_modes`).
"""

from __future__ import annotations

import random

from PIL import Image

from vargpt_lightning.data.images.picture_files import PictureError, bounded
from vargpt_lightning.data.images.resize_modes import MOST_PIXELS, VAR_MARGIN
from vargpt_lightning.data.images.shapes import Shape

RECTANGULAR = ("crop", "pad", "var")


def fit_rectangle(
    image: Image.Image, shape: Shape, fit: str, crop: random.Random | None = None, flip: bool = False
) -> Image.Image:
    """Return an RGB picture at a shape.

    "crop" keeps the middle of the shape's aspect ratio, "pad" adds white at two sides; "var" resizes to 1.125 times the
    shape or more and cuts it out, in the middle or, mirrored half of the time where `flip` says so, where `crop` says.

    Raises:
        PictureError: it is so narrow that it would not fit into memory.
    """
    if fit == "var":
        return _cut_out(image, shape, crop, flip)
    height, width = shape
    if fit == "pad":
        image = bounded(image, max(shape))
        scale = max(image.height / height, image.width / width)
    else:
        scale = min(image.height / height, image.width / width)
    inner = max(1, round(width * scale)), max(1, round(height * scale))
    if image.size != inner:
        ground = Image.new("RGB", inner, "white")
        ground.paste(image, ((inner[0] - image.width) // 2, (inner[1] - image.height) // 2))
        image = ground
    if image.size == (width, height):
        return image
    # the mean over the covered area is what antialiasing means when shrinking by whole factors
    whole = image.width % width == 0 and image.height % height == 0
    return image.resize((width, height), Image.Resampling.BOX if whole else Image.Resampling.BICUBIC)


def larger(shape: Shape, image: Image.Image) -> Shape:
    """Return a shape of the same aspect ratio that is as long as the picture, but at most twice as large."""
    factor = min(max(image.size) / max(shape), 2.0)
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def _cut_out(image: Image.Image, shape: Shape, crop: random.Random | None, flip: bool) -> Image.Image:
    if crop is not None and flip and crop.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    height, width = shape
    scale = VAR_MARGIN * max(height / image.height, width / image.width)
    size = max(width, int(image.width * scale)), max(height, int(image.height * scale))
    if size[0] * size[1] > MOST_PIXELS:
        raise PictureError(f"picture of {image.width} x {image.height} pixels: too narrow for {width} x {height}")
    image = image.resize(size, Image.Resampling.LANCZOS)
    spare_x, spare_y = image.width - width, image.height - height
    if crop is None:
        left, top = round(spare_x / 2), round(spare_y / 2)
    else:
        top, left = crop.randrange(spare_y + 1), crop.randrange(spare_x + 1)
    return image.crop((left, top, left + width, top + height))
