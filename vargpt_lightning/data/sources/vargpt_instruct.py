"""VARGPT's generation data (ImageNet-Instruct-130K and others): `messages` and `images`, pictures from ImageNet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vargpt_lightning.data.sources.base import Part, Row, read_all
from vargpt_lightning.data.sources.chats import chat_parts, chat_rows
from vargpt_lightning.data.sources.picture_index import imagenet_id

NAME = "vargpt_instruct"


def parts(path: Path, *, pictures: Path | None = None) -> list[Part]:
    """Return pieces of a JSON file, or of a folder's, for `read_part`.

    Args:
        path: rows of `messages` (`role`, `content`; `<image_gen>` where the assistant draws) and `images`.
        pictures: ImageNet as class folders, tar archives or parquet files with `image.bytes` and `image.path`;
            pictures are matched by their ImageNet ids, others by their paths. Beside the file by default.
    """
    return chat_parts(NAME, Path(path), pictures, {}, by="imagenet")


def read_part(part: Part) -> Iterator[Row]:
    """Read one piece."""
    return chat_rows(part, _key, by="imagenet")


def read(path: Path, *, pictures: Path | None = None) -> Iterator[Row]:
    """Read all rows; see `parts`."""
    return read_all(parts(path, pictures=pictures), read_part)


def _key(part: Part, path: str) -> str:
    # the same name as the source `imagenet` gives: tokens of a picture are computed once for both
    found = imagenet_id(path)
    return f"imagenet/{found}" if found else f"{part.path.stem}/{path}"
