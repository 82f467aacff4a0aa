"""Any conversations written as sharegpt's are: `conversations` or `messages`, and `image` or `images`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vargpt_lightning.data.sources.base import Part, Row, read_all
from vargpt_lightning.data.sources.chats import chat_parts, chat_rows

NAME = "sharegpt"


def parts(path: Path, *, pictures: Path | None = None, add_placeholder: bool = False) -> list[Part]:
    """Return pieces of a file, or of a folder's .json and .jsonl files, for `read_part`.

    Args:
        path: a JSON list of rows, one row a line, or a folder of such files. A row has `conversations` of `from` and
            `value`, or `messages` of `role` and `content`, and the paths of its pictures.
        pictures: where the paths begin; beside the file by default.
        add_placeholder: put `<image>` before the first question of rows that have pictures and no placeholder.
    """
    return chat_parts(NAME, Path(path), pictures, {"add_placeholder": add_placeholder})


def read_part(part: Part) -> Iterator[Row]:
    """Read one piece."""
    return chat_rows(part, lambda piece, path: f"{piece.path.stem}/{path}")


def read(path: Path, *, pictures: Path | None = None, add_placeholder: bool = False) -> Iterator[Row]:
    """Read all rows; see `parts`."""
    return read_all(parts(path, pictures=pictures, add_placeholder=add_placeholder), read_part)
