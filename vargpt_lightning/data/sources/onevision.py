"""LLaVA-OneVision's data: parquet files with pictures and conversations, a sub-folder for each configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vargpt_lightning.data.sources.base import (
    Part,
    Rejected,
    Row,
    RowError,
    conversation,
    put_placeholder,
    read_all,
    row_id,
)
from vargpt_lightning.data.sources.chats import picture_cells, turns_of
from vargpt_lightning.data.sources.corpus_folders import saved_files
from vargpt_lightning.data.sources.parquet_rows import find_parquet, picture_bytes
from vargpt_lightning.data.sources.tables import Columns, table_parts, table_rows
from vargpt_lightning.utils.errors import UserError

NAME = "onevision"
_TURNS = ("conversations", "messages")
_COLUMNS = ("id", "image", "images", *_TURNS, "system", "data_source")


def parts(
    path: Path,
    *,
    pictures: Path | None = None,
    configs: Sequence[str] | None = None,
    add_placeholder: bool = False,
) -> list[Part]:
    """Return pieces of a configuration's files, or of those of all configurations in a folder, for `read_part`.

    Args:
        path: a parquet file, a folder of them, or a folder of such folders; the folder's name is the configuration.
        pictures: not used here, the files hold the pictures.
        configs: only these configurations.
        add_placeholder: put `<image>` before the first question of rows that have a picture and no placeholder.

    Raises:
        UserError: no file, a configuration that is not there, a file that is broken or lacks `conversations`.
    """
    path = Path(path)
    files = (saved_files(path) or find_parquet(path)) if path.exists() else []
    if not files:
        raise UserError(f"{path}: no parquet file there; expected LLaVA-OneVision's, <configuration>/train-*.parquet")
    there = sorted({_config(file) for file in files})
    unknown = sorted(set(configs or ()) - set(there))
    if unknown:
        raise UserError(f"onevision configs: {', '.join(unknown)}; {path} has {', '.join(there)}")
    found: list[Part] = []
    for file in files:
        options = {"config": _config(file), "add_placeholder": add_placeholder}
        if configs is None or options["config"] in configs:
            pieces = table_parts(NAME, file, options)
            names = Columns(file, pieces).names
            if not set(_TURNS) & set(names):
                raise UserError(f"{file}: no column conversations or messages; expected it beside {', '.join(names)}")
            found += pieces
    return found


def read_part(part: Part) -> Iterator[Row]:
    """Read one piece."""
    config = part.options["config"]
    for number, row in table_rows(part, _COLUMNS):
        place = f"{config}-{part.path.stem}-{number}"
        if isinstance(row, RowError):
            yield Rejected(place, NAME, str(row))
            continue
        yield _row(row, row_id(row.get("id"), place), f"{NAME}/{place}", part)


def read(
    path: Path,
    *,
    pictures: Path | None = None,
    configs: Sequence[str] | None = None,
    add_placeholder: bool = False,
) -> Iterator[Row]:
    """Read all rows; see `parts`."""
    return read_all(parts(path, configs=configs, add_placeholder=add_placeholder), read_part)


def _config(file: Path) -> str:
    # the hub's own conversion puts files into a folder named for the split
    return file.parent.parent.name if file.parent.name in ("train", "data") else file.parent.name


def _row(row: Mapping[str, Any], name: str, key: str, part: Part) -> Row:
    files = {f"{key}-{number}": picture_bytes(cell)[0] for number, cell in enumerate(picture_cells(row))}
    turns, keys = turns_of(row)
    if not isinstance(turns, list):
        return Rejected(name, NAME, f"conversations are {type(turns).__name__}; expected a list")
    if part.options["add_placeholder"] and files:
        turns = put_placeholder(turns, len(files), keys)

    def load(wanted: str) -> bytes:
        if not (data := files[wanted]):
            raise RowError("the picture's cell has no bytes")
        return data

    meta = {"config": part.options["config"], "row_id": str(row.get("id"))}
    if isinstance(row.get("data_source"), str):
        meta["data_source"] = row["data_source"]
    return conversation(name, NAME, turns, list(files), load, keys=keys, meta=meta)
