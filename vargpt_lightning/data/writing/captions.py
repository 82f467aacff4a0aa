"""Captions read row by row from JSON lines, parquet, or a folder of pictures that lie beside them. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vargpt_lightning.errors import UserError

JSONL_ENDINGS = (".jsonl", ".ndjson")


@dataclass(frozen=True)
class Caption:
    """What a picture shows: `picture` is its path or name, as the instruction data will give it."""

    id: str
    picture: str
    text: str


@dataclass(frozen=True)
class BadCaption:
    """A row that cannot be used, and why."""

    id: str
    reason: str


@dataclass(frozen=True)
class CaptionColumns:
    """What the columns are called."""

    id: str = "id"
    picture: str = "picture"
    caption: str = "caption"

    @property
    def names(self) -> tuple[str, str, str]:
        return self.id, self.picture, self.caption


def read_captions(path: Path, columns: CaptionColumns | None = None) -> Iterator[Caption | BadCaption]:
    """Yield the captions of a .jsonl or .parquet file, of a folder of these, or of pictures with .txt files.

    A row that is no JSON object, lacks a value, holds NUL or half a surrogate pair, or has an id that came before is a
    BadCaption. Memory grows by the ids alone. Raises UserError for a file that is missing or of another kind, and for
    columns that are not there.
    """
    columns = columns or CaptionColumns()
    seen: set[str] = set()
    for where, row in _rows(path, columns):
        found = _caption(where, row, columns)
        if isinstance(found, Caption):
            if found.id in seen:
                found = BadCaption(found.id, "id twice")
            seen.add(found.id)
        yield found


def _rows(path: Path, columns: CaptionColumns) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
    if path.is_dir():
        files = sorted(path.rglob("*.parquet"))
        for file in files:
            yield from _parquet_rows(file, columns)
        if not files:
            yield from _folder_rows(path, columns)
    elif not path.is_file():
        raise UserError(f"{path}: not found; expected captions as .jsonl or .parquet, or a folder")
    elif path.suffix.lower() in JSONL_ENDINGS:
        yield from _json_rows(path, columns)
    elif path.suffix.lower() == ".parquet":
        yield from _parquet_rows(path, columns)
    else:
        raise UserError(f"{path}: ends in {path.suffix or 'nothing'!r}; expected .jsonl or .parquet")


def _folder_rows(path: Path, columns: CaptionColumns) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
    from vargpt_lightning.data.sources.caption_files import folder_captions

    some = False
    for key, picture, text in folder_captions(path):
        some = True
        yield key, dict(zip(columns.names, (key, picture, text if isinstance(text, str) else None), strict=True))
    if not some:
        raise UserError(
            f"{path}: no .parquet files in this folder, and no pictures; expected some, or pictures with .txt files"
        )


def _json_rows(path: Path, columns: CaptionColumns) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
    checked = False
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except (ValueError, RecursionError):
                row = None
            if isinstance(row, dict) and not checked:
                _require(set(row), columns, f"{path}, line {number}")
                checked = True
            yield f"line {number}", row if isinstance(row, dict) else None


def _parquet_rows(path: Path, columns: CaptionColumns) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as table:
            _require(set(table.schema_arrow.names), columns, str(path))
            kind = table.schema_arrow.field(columns.picture).type
            if pa.types.is_struct(kind) and "path" in [field.name for field in kind]:
                wanted = [columns.id, f"{columns.picture}.path", columns.caption]
            elif pa.types.is_struct(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
                raise UserError(f"{path}: column {columns.picture!r} holds pictures; expected their paths or names")
            else:
                wanted = list(columns.names)
            number = 0
            for batch in table.iter_batches(batch_size=4096, columns=wanted):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path.name}, row {number}", row
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: cannot be read as parquet ({error})") from error


def _require(there: set[str], columns: CaptionColumns, where: str) -> None:
    if missing := [name for name in columns.names if name not in there]:
        raise UserError(f"{where}: no column {' and '.join(missing)}; there are {', '.join(sorted(there)) or 'none'}")


def _caption(where: str, row: Mapping[str, Any] | None, columns: CaptionColumns) -> Caption | BadCaption:
    if row is None:
        return BadCaption(where, "caption not JSON")
    id_, picture, text = (row.get(name) for name in columns.names)
    if isinstance(picture, Mapping):
        picture = picture.get("path")
    if isinstance(id_, bool) or not isinstance(id_, (str, int)) or not str(id_).strip():
        return BadCaption(where, "caption without id")
    name = str(id_)
    if not isinstance(picture, str) or not picture.strip():
        return BadCaption(_printable(name), "caption without picture")
    if not isinstance(text, str) or not text.strip():
        return BadCaption(_printable(name), "caption empty")
    if any("\0" in value or _printable(value) != value for value in (name, picture, text)):
        return BadCaption(_printable(name), "caption not text")
    return Caption(name, picture, " ".join(text.split()))


def _printable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
