"""Which files are pictures, by the endings of their names in any case: those that are read, and those that are not.

What a file holds is seen when it is opened: its content decides how it is decoded, never its name.
"""

from __future__ import annotations

from functools import cache
from pathlib import PurePosixPath

from vargpt_lightning.data.images.picture_files import readable_formats

# in the order in which they count where a name has several
_ENDINGS = {
    "JPEG": ("jpg", "jpeg", "jpe", "jfif"),
    "PNG": ("png", "apng"),
    "WEBP": ("webp",),
    "GIF": ("gif",),
    "BMP": ("bmp", "dib"),
    "TIFF": ("tif", "tiff"),
    "AVIF": ("avif", "avifs"),
    "JPEG2000": ("jp2", "j2k", "jpf", "jpx", "j2c", "jpc"),
    "MPO": ("mpo",),
    "PPM": ("ppm", "pgm", "pbm", "pnm", "pfm"),
}
# pictures too, of kinds that nothing here decodes
_OTHERS = """
    heic heif hif jxl jxr wdp psd psb svg svgz tga ico cur icns eps ps ai pdf xcf pcx exr hdr dds sgi rgb ras fits fit
    raw dng cr2 cr3 crw nef nrw arw srf sr2 orf rw2 raf pef srw x3f erf kdc dcr mrw 3fr rwl dcm wmf emf qoi flif bpg
"""


@cache
def picture_endings() -> tuple[str, ...]:
    """The endings of pictures that are read here, in lower case and without dots, the preferred ones first."""
    return tuple(ending for kind in readable_formats() for ending in _ENDINGS.get(kind, ()))


@cache
def unread_endings() -> frozenset[str]:
    """The endings of pictures that are not read here."""
    known = {ending for endings in _ENDINGS.values() for ending in endings}
    return frozenset({*known, *_OTHERS.split()} - {*picture_endings()})


def split_ending(name: str) -> tuple[str, str]:
    """Return a path without the ending of its file, and the ending in lower case without its dot."""
    path = PurePosixPath(name)
    return path.with_suffix("").as_posix() if path.suffix else name, path.suffix[1:].lower()


def is_picture(name: str) -> bool:
    """Whether a file is a picture by its name, of a kind that is read."""
    return split_ending(name)[1] in picture_endings()


def unread_reason(name: str) -> str | None:
    """Why a picture by its name is not read; None where it is, and for what is no picture."""
    ending = split_ending(name)[1]
    if ending not in unread_endings():
        return None
    return f"a .{ending} picture, which is not read here; expected one of {endings_text()}"


def endings_text() -> str:
    """The commonest endings of pictures that are read, one of each format, for messages."""
    return ", ".join(f".{_ENDINGS[kind][0]}" for kind in readable_formats())
