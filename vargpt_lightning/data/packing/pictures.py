"""Pictures on their way into shards: each decoded once, and made smaller where that is asked for."""

from __future__ import annotations

import io
from dataclasses import dataclass, field

from PIL import Image

from vargpt_lightning.data.images.picture_files import MAX_PIXELS, decode_picture
from vargpt_lightning.data.shards.records import Record

JPEG_QUALITY = 95


@dataclass
class PictureFiles:
    """What is packed of a picture's file: the file itself, or with `resize` a smaller one if its short side is longer.

    Sources hand their pictures over one by one (`sources.base.pictures_through`); `of` sees to those of a source that
    does not. Raises PictureError for what is no picture, and for more than `max_pixels`.
    """

    resize: int | None = None
    max_pixels: int = MAX_PIXELS
    _done: dict[int, bytes] = field(default_factory=dict)

    def __call__(self, data: bytes, name: str) -> bytes:
        """Return the file to pack."""
        image = decode_picture(data, name, self.max_pixels)
        made = data if self.resize is None or min(image.size) <= self.resize else _smaller(image, data, self.resize)
        self._done[id(made)] = made  # kept, so that no other file can have its number
        return made

    def of(self, record: Record) -> Record:
        """Return the record with the files to pack in it; no file is decoded again."""
        pictures = record.pictures()
        if any(id(part.data) not in self._done for part in pictures if part.data is not None):
            files = [
                part.data if part.data is None or id(part.data) in self._done else self(part.data, part.name)
                for part in pictures
            ]
            record = record.with_pictures(files)
        self._done.clear()
        return record


def _smaller(image: Image.Image, data: bytes, resize: int) -> bytes:
    scale = resize / min(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    lossless = data.startswith((b"\x89PNG", b"GIF8"))
    buffer = io.BytesIO()
    image = image.resize(size, Image.Resampling.LANCZOS)
    image.save(buffer, **({"format": "PNG"} if lossless else {"format": "JPEG", "quality": JPEG_QUALITY}))
    return buffer.getvalue()
