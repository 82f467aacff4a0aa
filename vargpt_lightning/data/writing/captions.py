"""Captions read row by row from JSON lines, parquet, or a folder of pictures that lie beside them. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vargpt_lightning.utils.errors import UserError, near_path

JSONL_ENDINGS, CSV_ENDINGS = (".jsonl", ".ndjson"), (".csv", ".tsv")


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
    """Yield the captions of a .jsonl or .parquet file, of an imagefolder, or of a folder of pictures with texts.

    Columns of an imagefolder that are not there under their default names are found by the usual ones, as the source
    `captions` finds them; without an id the picture's path is one. A row that is no JSON object, lacks a value, holds
    NUL or half a surrogate pair, or has an id that came before is a BadCaption. Memory grows by the ids alone. Raises
    UserError for a file that is missing or of another kind, and for columns that are not there.
    """
    columns = columns or CaptionColumns()
    seen: set[str] = set()
    for where, row in _rows(path, columns):
        for found in _captions(where, row, columns):
            if isinstance(found, Caption) and found.id in seen:
                found = BadCaption(found.id, "id twice")
            seen.add(found.id)
            yield found


Rows = Iterator[tuple[str, Mapping[str, Any] | None]]


def _rows(path: Path, columns: CaptionColumns) -> Rows:
    if not path.is_dir():
        if not path.is_file():
            raise UserError(f"{path}: not found; expected captions as .jsonl or .parquet, or a folder{near_path(path)}")
        if path.suffix.lower() not in (*JSONL_ENDINGS, ".parquet"):
            raise UserError(f"{path}: ends in {path.suffix or 'nothing'!r}; expected .jsonl or .parquet")
        yield from _file_rows(path, columns)
        return
    from vargpt_lightning.data.sources.corpus_folders import find_layout

    layout = find_layout(path)
    if layout.kind != "table":
        yield from _folder_rows(path, columns)
        return
    for file in layout.files:
        if file.suffix.lower() == ".parquet" and file.stem.lower() != "metadata":
            yield from _file_rows(file, columns)
            continue
        below = file.parent.relative_to(path)
        for where, row in _file_rows(file, columns):
            # paths in a table of a sub-folder begin there
            inside = row if row is None or below == Path() else {**row, columns.picture: _below(below, row, columns)}
            yield where, inside


def _below(folder: Path, row: Mapping[str, Any], columns: CaptionColumns) -> Any:
    picture = row.get(columns.picture)
    return (folder / picture).as_posix() if isinstance(picture, str) and picture.strip() else picture


def _file_rows(path: Path, columns: CaptionColumns) -> Rows:
    ending = path.suffix.lower()
    if ending in JSONL_ENDINGS:
        yield from _json_rows(path, columns)
    elif ending in CSV_ENDINGS:
        yield from _csv_rows(path, columns)
    elif ending == ".parquet":
        yield from _parquet_rows(path, columns)
    else:
        raise UserError(f"{path}: ends in {ending or 'nothing'!r}; expected .jsonl, .csv or .parquet")


def _folder_rows(path: Path, columns: CaptionColumns) -> Rows:
    from vargpt_lightning.data.sources.caption_files import folder_captions

    some = False
    for key, picture, text in folder_captions(path):
        some = True
        yield key, dict(zip(columns.names, (key, picture, text if isinstance(text, str) else None), strict=True))
    if not some:
        raise UserError(
            f"{path}: no .parquet files in this folder, and no pictures; expected some, or pictures with .txt files"
        )


def _csv_rows(path: Path, columns: CaptionColumns) -> Rows:
    from vargpt_lightning.data.sources.csv_rows import csv_columns, csv_parts, csv_rows

    there = _resolved(csv_columns(path), columns, str(path))
    for part in csv_parts("captions", path, {}):
        for number, row in csv_rows(part):
            where = f"{path.name}, row {number + 1}"
            yield where, None if isinstance(row, UserError) else _renamed(row, there, columns)


def _json_rows(path: Path, columns: CaptionColumns) -> Rows:
    there: CaptionColumns | None = None
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except (ValueError, RecursionError):
                row = None
            if isinstance(row, dict) and there is None:
                there = _resolved(list(row), columns, f"{path}, line {number}")
            yield f"line {number}", _renamed(row, there, columns) if isinstance(row, dict) and there else None


def _parquet_rows(path: Path, columns: CaptionColumns) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as table:
            there = _resolved(table.schema_arrow.names, columns, str(path))
            kind = table.schema_arrow.field(there.picture).type
            wanted = [name for name in there.names if name]
            if pa.types.is_struct(kind) and "path" in [field.name for field in kind]:
                wanted[wanted.index(there.picture)] = f"{there.picture}.path"
            elif pa.types.is_struct(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
                raise UserError(f"{path}: column {there.picture!r} holds pictures; expected their paths or names")
            number = 0
            for batch in table.iter_batches(batch_size=4096, columns=wanted):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path.name}, row {number}", _renamed(row, there, columns)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: cannot be read as parquet ({error})") from error


def _resolved(there: Sequence[str], columns: CaptionColumns, where: str) -> CaptionColumns:
    """The columns as the table calls them; "" for an id that it does not have."""
    from vargpt_lightning.data.sources.caption_files import CAPTION_KEYS
    from vargpt_lightning.data.sources.caption_tables import ID_NAMES, PICTURE_NAMES, named_columns

    usual = dict(zip(CaptionColumns().names, (ID_NAMES, PICTURE_NAMES, CAPTION_KEYS), strict=True))
    found = {}
    for role, name in zip(usual, columns.names, strict=True):
        others = named_columns(there, usual[role]) if name == role and "file_name" in there else []
        found[role] = name if name in there else others[0] if others else ""
    missing = [name for role, name in zip(usual, columns.names, strict=True) if not found[role]]
    if columns.id == "id" and "id" in missing and "file_name" in there:
        missing.remove("id")
    if missing:
        raise UserError(f"{where}: no column {' and '.join(missing)}; there are {', '.join(sorted(there)) or 'none'}")
    return CaptionColumns(**found)


def _renamed(row: Mapping[str, Any], there: CaptionColumns, columns: CaptionColumns) -> dict[str, Any]:
    values = {wanted: row.get(name) for wanted, name in zip(columns.names, there.names, strict=True)}
    return values if there.id else {**values, columns.id: _path(values[columns.picture])}


def _path(picture: Any) -> Any:
    return picture.get("path") if isinstance(picture, Mapping) else picture


def _captions(where: str, row: Mapping[str, Any] | None, columns: CaptionColumns) -> Iterator[Caption | BadCaption]:
    """The captions of a row, more than one where it has a list of them."""
    texts = row.get(columns.caption) if row is not None else None
    if row is None or not isinstance(texts, list):
        yield _caption(where, row, columns)
        return
    for number, text in enumerate(texts or [None], 1):
        own = row.get(columns.id)
        yield _caption(
            where, {**row, columns.id: own if number == 1 else f"{own}-{number}", columns.caption: text}, columns
        )


def _caption(where: str, row: Mapping[str, Any] | None, columns: CaptionColumns) -> Caption | BadCaption:
    if row is None:
        return BadCaption(where, "caption not JSON")
    id_, picture, text = (row.get(name) for name in columns.names)
    picture = _path(picture)
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
