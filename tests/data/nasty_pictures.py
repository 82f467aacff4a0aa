"""Picture files that are seldom met, and what each of them shows: a square whose left half is red and right half blue.

Grey ones are dark on the left and bright on the right; transparent ones have nothing on the right.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

SIDE = 16


def halves(left: str = "red", right: str = "blue", width: int = SIDE, height: int = SIDE) -> Image.Image:
    image = Image.new("RGB", (width, height), right)
    image.paste(left, (0, 0, width // 2, height))
    return image


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def one_pixel() -> bytes:
    return saved(Image.new("RGB", (1, 1), "red"))


def a_line(length: int = 50_000) -> bytes:
    """One pixel wide, a square around it would hold 2.5 thousand million."""
    return saved(Image.new("RGB", (1, length), "red"))


def cmyk() -> bytes:
    return saved(halves().convert("CMYK"), "JPEG", quality=95)


def sixteen_bits(kind: str = "PNG") -> bytes:
    """Grey of 16 bits: 8192 of 65535 on the left, 49152 on the right."""
    values_HW = np.full((SIDE, SIDE), 49152, np.uint16)
    values_HW[:, : SIDE // 2] = 8192
    return saved(Image.fromarray(values_HW), kind)


def sixteen_bits_clear() -> bytes:
    """The same with the value of its right half said to be transparent."""
    return with_chunk(sixteen_bits(), b"tRNS", struct.pack(">H", 49152))


def fractions() -> bytes:
    values_HW = np.full((SIDE, SIDE), 0.75, np.float32)
    values_HW[:, : SIDE // 2] = 0.125
    return saved(Image.fromarray(values_HW), "TIFF")


def animated(kind: str = "GIF") -> bytes:
    """The halves, and then two frames of green."""
    frames = [Image.new("RGB", (SIDE, SIDE), "green"), Image.new("RGB", (SIDE, SIDE), "lime")]
    return saved(halves(), kind, save_all=True, append_images=frames, **({"lossless": True} if kind == "WEBP" else {}))


def palette_with_transparency() -> bytes:
    """Red on the left; the right half's palette entry is black, and transparent."""
    image = Image.new("P", (SIDE, SIDE), 1)
    image.putpalette([255, 0, 0, 0, 0, 0])
    image.paste(0, (0, 0, SIDE // 2, SIDE))
    return saved(image, transparency=bytes([255, 0]))


def turned(kind: str = "JPEG") -> bytes:
    """Stored with red above blue, and an EXIF block that says: turn it a quarter to the left (8)."""
    exif = Image.Exif()
    exif[0x0112] = 8
    wide = Image.new("RGB", (2 * SIDE, SIDE), "blue")
    wide.paste("red", (0, 0, 2 * SIDE, SIDE // 2))
    return saved(wide, kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {"lossless": True}))


def broken_exif() -> bytes:
    return saved(halves(), "JPEG", quality=95, exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")


def bomb(side: int = 20_000) -> bytes:
    """A PNG that says to hold 400 million pixels, and holds the first of them."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    """A PNG whose text is three megabytes when it is uncompressed."""
    return with_chunk(saved(halves()), b"zTXt", b"Comment\0\0" + zlib.compress(bytes(3 * 2**20), 1))


def postscript() -> bytes:
    """Pillow would start Ghostscript for this."""
    return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\nshowpage\n%%EOF\n"


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunk(png: bytes, kind: bytes, data: bytes) -> bytes:
    """The PNG with a chunk behind its first."""
    return png[:33] + chunk(kind, data) + png[33:]
