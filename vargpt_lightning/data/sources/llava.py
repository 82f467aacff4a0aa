"""LLaVA-1.5's instruction data: `llava_v1_5_mix665k.json` beside coco/, gqa/, ocr_vqa/, textvqa/ and vg/."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vargpt_lightning.data.sources.base import Part, Row, read_all
from vargpt_lightning.data.sources.chats import chat_parts, chat_rows

NAME = "llava"
FILE = "llava_v1_5_mix665k.json"


def parts(path: Path, *, pictures: Path | None = None, add_placeholder: bool = False) -> list[Part]:
    """Return pieces of the file (or of the one in a folder), for `read_part`.

    Args:
        path: the JSON file, or a folder that has it.
        pictures: where coco/ and the others lie, as folders or as coco.tar and so on; beside the file by default.
        add_placeholder: put `<image>` before the question of rows that have a picture and no placeholder.
    """
    return chat_parts(NAME, Path(path), pictures, {"add_placeholder": add_placeholder}, prefer=FILE)


def read_part(part: Part) -> Iterator[Row]:
    """Read one piece."""
    return chat_rows(part, lambda _, path: path)


def read(path: Path, *, pictures: Path | None = None, add_placeholder: bool = False) -> Iterator[Row]:
    """Read the whole file; see `parts`."""
    return read_all(parts(path, pictures=pictures, add_placeholder=add_placeholder), read_part)
