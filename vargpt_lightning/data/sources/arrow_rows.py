"""Rows of Arrow files as `datasets` saves them (streams of record batches), and what it notes of their columns."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vargpt_lightning.data.sources.base import ROWS_PER_PART, Part, RowError
from vargpt_lightning.utils.errors import UserError

_BATCH = 32


@contextmanager
def open_arrow(path: Path) -> Iterator[Any]:
    """Open a file's batches, an iterable with a `schema`; what goes wrong inside the block is a UserError naming it."""
    import pyarrow

    try:
        with pyarrow.memory_map(str(path)) as file:
            try:
                batches = pyarrow.ipc.open_stream(file)
            except pyarrow.ArrowInvalid:
                batches = _Batches(pyarrow.ipc.open_file(file))
            yield batches
    except (pyarrow.ArrowException, OSError) as error:
        text = str(error).strip().splitlines()[0][:200] if str(error).strip() else repr(error)
        raise UserError(f"{path}: {text}; expected a whole Arrow file") from error


class _Batches:
    """The batches of a file with a table of contents, read as those of a stream are."""

    def __init__(self, file: Any) -> None:
        self.schema, self._file = file.schema, file

    def __iter__(self) -> Iterator[Any]:
        return (self._file.get_batch(number) for number in range(self._file.num_record_batches))


def arrow_parts(source: str, path: Path, options: Mapping[str, Any], rows: int = ROWS_PER_PART) -> list[Part]:
    """Return pieces of a file of whole batches, about `rows` rows each; raises UserError as `open_arrow`."""
    found: list[Part] = []
    with open_arrow(path) as batches:
        start, first, count, number = 0, 0, 0, -1
        for number, batch in enumerate(batches):
            if count and count + batch.num_rows > rows:
                found.append(Part(source, path, start, number, first, options))
                start, first, count = number, first + count, 0
            count += batch.num_rows
        if count:
            found.append(Part(source, path, start, number + 1, first, options))
    return found


def arrow_rows(part: Part, columns: list[str]) -> Iterator[tuple[int, dict[str, Any] | RowError]]:
    """Yield a piece's rows as mappings of those of the columns that are there, with their numbers in the file."""
    number = part.first
    with open_arrow(part.path) as batches:
        names = [name for name in columns if name in batches.schema.names]
        for place, batch in enumerate(batches):
            if part.stop is not None and place >= part.stop:
                return
            if place >= part.start:
                for start in range(0, batch.num_rows, _BATCH):
                    for row in batch_rows(batch.select(names).slice(start, _BATCH)):
                        yield number, row
                        number += 1


def batch_rows(batch: Any) -> Iterator[dict[str, Any] | RowError]:
    """Yield the rows of a batch; one whose text is no UTF-8 is a RowError."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for number in range(batch.num_rows):
            try:
                yield batch.slice(number, 1).to_pylist()[0]
            except UnicodeDecodeError as error:
                yield RowError(f"text that is not Unicode ({error.reason})")


def features(schema: Any) -> dict[str, Mapping[str, Any]]:
    """Return what `datasets` noted of a table's columns: `_type` (Image, ClassLabel, ...), `names` of classes."""
    try:
        told = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: about for name, about in told.items() if isinstance(about, Mapping)}
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return {}
