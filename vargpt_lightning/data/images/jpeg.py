"""JPEG files decoded straight into arrays by libjpeg-turbo, where that gives what Pillow gives, bit by bit.

Pillow decodes with the same library, into pictures of its own, which then become arrays: a third more work.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

from vargpt_lightning.data.images.picture_files import MAX_PIXELS

Place = Callable[[int, int], Any]
_START, _SCAN, _APP1, _APP2 = b"\xff\xd8\xff", 0xDA, 0xE1, 0xE2
_ALONE = (0x01, *range(0xD0, 0xD9))  # markers without a length
_UPRIGHT = (None, 1)
_ORIENTATION = 0x0112


def decode_jpeg(data: bytes | None, max_pixels: int = MAX_PIXELS, place: Place | None = None) -> Any:
    """Return a JPEG file's RGB pixels (H, W, 3), uint8; None for what Pillow must decode, or refuse.

    That is all but plain colour and grey pictures of at most `max_pixels` that need not be turned, whole and without
    anything that libjpeg warns of. `place` says where a picture of a height and a width is to be put; None: anywhere.
    """
    if not data or not data.startswith(_START) or not _decoder_agrees():
        return None
    import simplejpeg

    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours not in ("YCbCr", "Gray") or height * width > max_pixels or not _upright(data):
            return None
        there = place(height, width) if place else None
        found = simplejpeg.decode_jpeg(data, "RGB", buffer=there)
        return found if there is None else there
    except (ValueError, IndexError):
        return None


def _upright(data: bytes) -> bool:
    """Whether nothing in the file says that it is to be turned; or that it holds several pictures."""
    place = 2
    while True:
        while data[place + 1] == 0xFF:  # markers may be filled up
            place += 1
        if data[place] != 0xFF:
            return False
        marker = data[place + 1]
        if marker == _SCAN:
            return True
        if marker == _APP1:
            return _read_orientation(data) in _UPRIGHT
        if marker == _APP2 and data[place + 4 : place + 8] == b"MPF\0":
            return False
        place += 2 if marker in _ALONE else 2 + int.from_bytes(data[place + 2 : place + 4], "big")


def _read_orientation(data: bytes) -> Any:
    from PIL import Image

    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            warnings.simplefilter("ignore")
            return image.getexif().get(_ORIENTATION)
    except Exception:  # broken files make Pillow raise nearly anything
        return 0


@cache
def _decoder_agrees() -> bool:
    """Whether there is simplejpeg, and it decodes as this Pillow does, which may be built with another library."""
    try:
        import simplejpeg
    except ImportError:
        return False
    import numpy as np
    from PIL import Image

    noise_HWC = np.random.default_rng(0).integers(0, 256, (37, 51, 3)).astype(np.uint8)
    for sampling in (0, 1, 2):  # 4:4:4, 4:2:2, 4:2:0
        buffer = io.BytesIO()
        Image.fromarray(noise_HWC).save(buffer, "JPEG", quality=75, subsampling=sampling)
        if not np.array_equal(simplejpeg.decode_jpeg(buffer.getvalue(), "RGB"), np.asarray(Image.open(buffer))):
            return False
    return True
