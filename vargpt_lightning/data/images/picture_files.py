"""Encoded picture files opened: the one way from bytes to RGB pixels, for every kind of file there is.

What comes out is upright, 8 bits a colour, on white where the file is transparent, and the first of several frames.
Imports neither torch nor numpy, so that packing's processes start at once.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from functools import cache

from PIL import ExifTags, Image, ImageOps

from vargpt_lightning.utils.errors import UserError

MAX_PIXELS = 100_000_000  # 300 MB as RGB
# Pillow knows more, and runs programs for some of them (EPS)
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "MPO", "PPM")
_TURNED = (5, 6, 7, 8)  # EXIF's orientations with width and height exchanged
_LONGEST, _SHORTER = 8192, 2048  # a side of a square that is not yet a burden, and what longer ones are made


class PictureError(UserError):
    """A file that should be a picture and is not: in a stream it is skipped and counted."""


class TooManyPixelsError(PictureError):
    """A picture of more pixels than the limit: its bytes are few, decoded it would fill the memory."""


def decode_picture(data: bytes | None, name: str = "picture", max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a picture file to RGB: turned as its EXIF says, what is transparent white, 16 bits scaled to 8.

    Raises PictureError naming it when it is none, TooManyPixelsError before more than `max_pixels` are decoded.
    """
    if not data:
        raise PictureError(f"{name}: no bytes; expected a PNG, JPEG, WebP or GIF file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a broken EXIF block is no reason to print in the middle of training
            image = _opened(data, name, max_pixels)
            image.load()
            return _rgb(_upright(image))
    except PictureError:
        raise
    except Exception as error:  # broken files make Pillow's plug-ins raise nearly anything
        # without the address that Pillow tells: the same file is to be refused in the same words
        why = re.sub(r" <_io\.BytesIO object at \w+>", "", str(error)) or type(error).__name__
        raise PictureError(f"{name}: {len(data)} bytes that are no picture ({why})") from error


def picture_size(data: bytes) -> tuple[int, int] | None:
    """Return the width and height that the decoded picture will have, from its first bytes; None when it is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=readable_formats())
            width, height = image.size
            turned = image.getexif().get(ExifTags.Base.Orientation) in _TURNED
        return (height, width) if turned else (width, height)
    except Exception:  # as above
        return None


def bounded(image: Image.Image, size: int) -> Image.Image:
    """Return the picture so small that a square around it, from which one of `size` will be made, fits into memory.

    Nearly all pictures come back as they are: it is for lines of one pixel by a hundred thousand.
    """
    longest = max(image.size)
    if longest <= max(_LONGEST, size):
        return image
    scale = max(_SHORTER, size) / longest
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BOX)


@cache
def readable_formats() -> tuple[str, ...]:
    """Pillow's names of the formats that are read, those that this Pillow can."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _opened(data: bytes, name: str, max_pixels: int) -> Image.Image:
    before = Image.MAX_IMAGE_PIXELS
    try:
        # ours is the limit that counts: Pillow's own would refuse later, or warn
        Image.MAX_IMAGE_PIXELS = None
        image: Image.Image = Image.open(io.BytesIO(data), formats=readable_formats())
    finally:
        Image.MAX_IMAGE_PIXELS = before
    if image.width * image.height > max_pixels:
        raise TooManyPixelsError(
            f"{name}: {image.width} x {image.height} pixels in {len(data)} bytes; expected at most {max_pixels:,}"
        )
    return image


def _upright(image: Image.Image) -> Image.Image:
    # an EXIF block that cannot be read turns nothing
    with contextlib.suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bits(image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layered = image.convert("RGBA")
        ground = Image.new("RGBA", layered.size, "white")
        image = Image.alpha_composite(ground, layered)
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """A grey picture of more than 8 bits, scaled: Pillow's own conversion makes nearly all of it white.

    16 bits count from 0 to 65535, fractions from 0 to 1; what has other values is stretched to its own range.
    """
    import numpy as np  # its threads must not be there when packing starts its processes

    values_HW = np.asarray(image).astype(np.float64)
    values_HW = np.nan_to_num(values_HW, posinf=0.0, neginf=0.0)
    low, high = (0.0, 1.0) if image.mode == "F" else (0.0, 65535.0)
    if values_HW.min(initial=low) < low or values_HW.max(initial=high) > high:
        low, high = float(values_HW.min()), float(values_HW.max())
    scaled = np.rint((values_HW - low) * (255 / (high - low))).astype(np.uint8)
    grey = Image.fromarray(scaled)
    clear = image.info.get("transparency")
    if isinstance(clear, int):  # of a PNG: one value stands for nothing
        alpha = np.where(values_HW == clear, 0, 255).astype(np.uint8)
        return Image.merge("LA", (grey, Image.fromarray(alpha)))
    return grey
