"""Tables of every kind that corpora come in, read alike: JSON (a list, or lines), CSV, parquet and Arrow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from vargpt_lightning.data.sources.arrow_rows import arrow_parts, arrow_rows, features, open_arrow
from vargpt_lightning.data.sources.base import Part, RowError
from vargpt_lightning.data.sources.csv_rows import csv_columns, csv_parts, csv_rows
from vargpt_lightning.data.sources.json_rows import json_parts, json_rows
from vargpt_lightning.data.sources.parquet_rows import open_parquet, parquet_parts, parquet_rows
from vargpt_lightning.utils.errors import UserError

JSON, CSV, PARQUET, ARROW = (".json", ".jsonl", ".ndjson"), (".csv", ".tsv"), (".parquet",), (".arrow",)
ENDINGS = (*JSON, *CSV, *PARQUET, *ARROW)
_ROWS_LOOKED_AT = 100


def is_table(path: Path) -> bool:
    """Whether a file is a table by its name."""
    return path.suffix.lower() in ENDINGS


def table_parts(source: str, path: Path, options: Mapping[str, Any]) -> list[Part]:
    """Return pieces of a table, for `table_rows`; raises UserError for a file that is cut off or of another kind."""
    ending = path.suffix.lower()
    if ending in JSON:
        return json_parts(source, path, options)
    if ending in CSV:
        return csv_parts(source, path, options)
    if ending in PARQUET:
        return parquet_parts(source, path, options, ())
    if ending in ARROW:
        return arrow_parts(source, path, options)
    raise UserError(f"{path}: ends in {ending or 'nothing'!r}; expected {', '.join(ENDINGS)}")


def table_rows(part: Part, columns: Sequence[str]) -> Iterator[tuple[int, Mapping[str, Any] | RowError]]:
    """Yield a piece's rows with their numbers in the file; a row that cannot be read is a RowError.

    Parquet and Arrow files are read for these columns alone.
    """
    ending = part.path.suffix.lower()
    if ending in JSON:
        for number, row in json_rows(part):
            if not isinstance(row, (Mapping, RowError)):
                row = RowError(f"a row is {type(row).__name__}; expected an object")
            yield number, row
    elif ending in CSV:
        yield from csv_rows(part)
    else:
        yield from parquet_rows(part, columns) if ending in PARQUET else arrow_rows(part, list(columns))


class Columns:
    """What a table of these parts says of its columns: their names, those that hold pictures, and names of classes."""

    def __init__(self, path: Path, parts: Sequence[Part]) -> None:
        ending = path.suffix.lower()
        self.pictures: list[str] = []
        self.classes: dict[str, list[str]] = {}
        if ending in JSON:
            rows = islice(json_rows(parts[0]), _ROWS_LOOKED_AT) if parts else iter(())
            self.names = list(dict.fromkeys(name for _, row in rows if isinstance(row, Mapping) for name in row))
        elif ending in CSV:
            self.names = csv_columns(path)
        elif ending in PARQUET:
            with open_parquet(path) as file:
                self._from_schema(file.schema_arrow)
        else:
            with open_arrow(path) as batches:
                self._from_schema(batches.schema)

    def _from_schema(self, schema: Any) -> None:
        told = features(schema)
        self.names = list(schema.names)
        noted = [name for name in self.names if told.get(name, {}).get("_type") == "Image"]
        self.pictures = noted + [name for name in self.names if name not in noted and _holds_pictures(schema, name)]
        for name in self.names:
            if told.get(name, {}).get("_type") == "ClassLabel":
                self.classes[name] = [str(each) for each in told[name].get("names") or ()]


def _holds_pictures(schema: Any, name: str) -> bool:
    """Whether a column's type is that of encoded pictures: bytes, bytes and path, or lists of these."""
    import pyarrow.types as kinds

    kind = schema.field(name).type
    while kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind):
        kind = kind.value_type
    if kinds.is_struct(kind):
        return {"bytes", "path"} <= {field.name for field in kind}
    return bool(kinds.is_binary(kind) or kinds.is_large_binary(kind) or kinds.is_binary_view(kind))
