"""What pictures and questions are known by: hashes of bytes, of what a picture looks like, and of words.

Shape suffixes: H height, W width, C colours, D squares of a side.
"""

from __future__ import annotations

import hashlib
import re

import numpy as np
from PIL import Image

from vargpt_lightning.data.images.picture_files import decode_picture

SQUARES = 9  # of a side: eight differences
FINE = 4  # pixels of a square's side
STEP = 1.5  # levels of 255 below which a difference is noise, as in a plain background
BITS, BANDS = 128, 8
NEAR = 7
"""Bits of 128 by which near duplicates may differ: with one band more, one of them is then equal in both."""
ALIKE, CORRELATED = 0.06, 0.97
"""Pictures look alike whose squares' colours differ by so much of 1 (root mean square), or are so much correlated."""


def bytes_hash(data: bytes) -> int:
    """64 bits of a file's SHA-256."""
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big")


def squares(data: bytes, name: str) -> np.ndarray:
    """Return a picture's mean colours (D, D, C) in 9 x 9 squares, 0 to 255, whatever its size and shape.

    Raises:
        PictureError: it is no picture.
    """
    side = SQUARES * FINE
    small = decode_picture(data, name).resize((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0)
    pixels_HWC = np.asarray(small, dtype=np.float32)
    return pixels_HWC.reshape(SQUARES, FINE, SQUARES, FINE, 3).mean(axis=(1, 3))


def looks_hash(squares_DDC: np.ndarray) -> np.ndarray:
    """128 bits as two uint64: whether each square is brighter than the one to its left, and than the one above.

    A difference hash (N. Krawetz, "Kind of Like That", 2013) in both directions, with a margin for plain grounds.
    """
    grey_DD = squares_DDC @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    right = grey_DD[:-1, 1:] - grey_DD[:-1, :-1] > STEP
    down = grey_DD[1:, :-1] - grey_DD[:-1, :-1] > STEP
    return np.packbits(np.stack([right, down])).view(">u8").astype(np.uint64)


def alike(one_DDC: np.ndarray, other_DDC: np.ndarray) -> bool:
    """Whether squares have the same colours, or colours that are brighter or darker throughout."""
    if float(np.sqrt(np.mean((one_DDC - other_DDC) ** 2))) / 255 <= ALIKE:
        return True
    one, other = one_DDC - one_DDC.mean(), other_DDC - other_DDC.mean()
    size = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return size > 0 and float((one * other).sum()) >= CORRELATED * size


def words(text: str) -> str:
    """A text as it is compared: its letters and digits in small letters, with single spaces between words."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def text_keys(text: str) -> set[int]:
    """Hashes of a turn's whole text, and of each of its lines: prompts end with lines that say how to answer."""
    parts = {words(part) for part in (text, *text.splitlines())}
    return {text_hash(part) for part in parts if part}


def text_hash(normal: str) -> int:
    """64 bits of the hash of a text as `words` gives it."""
    return int.from_bytes(hashlib.blake2b(normal.encode("utf-8", "replace"), digest_size=8).digest(), "big")


def bits_apart(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """How many bits differ between hashes (..., 2) of uint64."""
    differing = np.bitwise_xor(one, other)
    return np.unpackbits(differing.view(np.uint8).reshape(*differing.shape[:-1], 16), axis=-1).sum(axis=-1)
