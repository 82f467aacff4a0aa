"""Rows of CSV and TSV files, in pieces that begin at a row wherever line breaks stand inside quotes."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from vargpt_lightning.data.sources.base import ROWS_PER_PART, Part, RowError
from vargpt_lightning.utils.counted import counted
from vargpt_lightning.utils.errors import UserError

EXPECTED = "a CSV file with the columns' names in its first line"
_LONGEST = 2**24  # characters of a cell


class _Reader:
    """A file's rows of cells, and where the last of them ended; the columns are those of its first line."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.file, self.at = path, file, 0
        opening = file.readline().decode("utf-8-sig", "surrogateescape")
        file.seek(0)
        self.mark = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=opening.count)
        self.columns = next(self.rows(), [])
        if not any(self.columns) or len(set(self.columns)) < len(self.columns):
            raise UserError(f"{path}: the first line is {opening.strip()[:80]!r}; expected {EXPECTED}, each once")

    def rows(self) -> Iterator[list[str]]:
        """The rows from the file's place on, those without any cell left out."""
        csv.field_size_limit(_LONGEST)
        try:
            yield from filter(None, csv.reader(self._lines(), delimiter=self.mark, strict=True))
        except csv.Error as error:
            raise UserError(f"{self.path}: before byte {self.at}: {error}; expected {EXPECTED}, whole") from error

    def _lines(self) -> Iterator[str]:
        for line in self.file:
            first, self.at = self.at == 0, self.at + len(line)
            yield line.decode("utf-8-sig" if first else "utf-8", "surrogateescape")


def csv_columns(path: Path) -> list[str]:
    """Return the names in a file's first line; raises UserError when it has none, or one twice."""
    with open(path, "rb") as file:
        return _Reader(path, file).columns


def csv_parts(source: str, path: Path, options: Mapping[str, Any], rows: int = ROWS_PER_PART) -> list[Part]:
    """Return pieces of about `rows` rows; all are walked once to find them. Raises UserError as `csv_columns`."""
    found: list[Part] = []
    with open(path, "rb") as file:
        reader = _Reader(path, file)
        start, first, count = reader.at, 0, 0
        for _ in reader.rows():
            count += 1
            if count == rows:
                found.append(Part(source, path, start, reader.at, first, options))
                start, first, count = reader.at, first + count, 0
        if count:
            found.append(Part(source, path, start, reader.at, first, options))
    return found


def csv_rows(part: Part) -> Iterator[tuple[int, dict[str, Any] | RowError]]:
    """Yield a piece's rows as mappings, with their numbers in the file; too many or few cells are a RowError."""
    with open(part.path, "rb") as file:
        reader = _Reader(part.path, file)
        file.seek(part.start)
        reader.at = part.start
        number = part.first
        for cells in reader.rows():
            if part.stop is not None and reader.at > part.stop:
                return
            if len(cells) == len(reader.columns):
                yield number, dict(zip(reader.columns, cells, strict=True))
            else:
                told = f"{counted(len(cells), 'cell')} for {counted(len(reader.columns), 'column')}"
                yield number, RowError(f"{told}; a comma in a text asks for quotes")
            number += 1
