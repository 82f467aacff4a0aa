"""Rows of parquet files, a few row groups at a time; pictures stay encoded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vargpt_lightning.data.sources.arrow_rows import batch_rows
from vargpt_lightning.data.sources.base import ROWS_PER_PART, Part, RowError
from vargpt_lightning.utils.errors import UserError

_BATCH = 32


@contextmanager
def open_parquet(path: Path, columns: Sequence[str] = ()) -> Iterator[Any]:
    """Open a parquet file that has the columns; what goes wrong with it inside the block is a UserError naming it."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path, memory_map=True) as file:
            there = file.schema_arrow.names
            missing = [name for name in columns if name not in there]
            if missing:
                raise UserError(f"{path}: no column {', '.join(missing)}; expected it beside {', '.join(there)}")
            yield file
    except (pyarrow.ArrowException, OSError) as error:
        text = str(error).strip().splitlines()[0][:200] if str(error).strip() else repr(error)
        raise UserError(f"{path}: {text}; expected a whole parquet file") from error


def parquet_parts(
    source: str, path: Path, options: Mapping[str, Any], columns: Sequence[str], rows: int = ROWS_PER_PART
) -> list[Part]:
    """Return pieces of a file of whole row groups, about `rows` rows each; raises UserError as `open_parquet`."""
    found: list[Part] = []
    with open_parquet(path, columns) as file:
        start, first, count = 0, 0, 0
        for group in range(file.num_row_groups):
            size = file.metadata.row_group(group).num_rows
            if count and count + size > rows:
                found.append(Part(source, path, start, group, first, options))
                start, first, count = group, first + count, 0
            count += size
        if count:
            found.append(Part(source, path, start, file.num_row_groups, first, options))
    return found


def parquet_rows(part: Part, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any] | RowError]]:
    """Yield a piece's rows as mappings of those of the columns that are there, with their numbers in the file.

    A row whose text is no UTF-8 is a RowError.
    """
    with open_parquet(part.path) as file:
        stop = file.num_row_groups if part.stop is None else part.stop
        names = [name for name in columns if name in file.schema_arrow.names]
        groups = list(range(part.start, stop))
        number = part.first
        for batch in file.iter_batches(batch_size=_BATCH, row_groups=groups, columns=names):
            for row in batch_rows(batch):
                yield number, row
                number += 1


def find_parquet(path: Path) -> list[Path]:
    """Return the parquet files of a folder and of those below it, by name, or the one file."""
    if path.is_file():
        return [path]
    return sorted(file for file in path.rglob("*.parquet") if file.is_file())


def picture_bytes(value: Any) -> tuple[bytes | None, str]:
    """Return the encoded picture of a cell (bytes, or bytes and path) and its path, "" if none is given."""
    if isinstance(value, Mapping):
        data, path = value.get("bytes"), value.get("path")
        return (bytes(data) if data else None), path if isinstance(path, str) else ""
    return (bytes(value), "") if isinstance(value, (bytes, bytearray)) else (None, "")
