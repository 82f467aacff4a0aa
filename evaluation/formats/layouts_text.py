"""Rows out of TSV, JSON and JSON-lines files, as benchmarks' authors publish them."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vargpt_lightning.evaluation.base.benchmark import Record
from vargpt_lightning.evaluation.formats.layouts_rows import Picture, Rows, require
from vargpt_lightning.utils.errors import UserError

LONGEST_REFERENCE = 16  # characters; no picture is as short as a row's number


def read_json(path: str | Path) -> Any:
    """The value in a JSON file. Raises UserError naming the file when it is missing, not UTF-8 or not JSON."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(_encoding(path, error)) from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from error


def _encoding(path: Path, error: UnicodeDecodeError) -> str:
    return f"{path}: byte {error.start} ({error.object[error.start]:#04x}) is not UTF-8; expected a file in UTF-8"


def _lines(path: Path, offset: int = 0) -> Iterator[tuple[int, str]]:
    """Lines with the place of the byte after each, from a place that is the start of a line."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    with open(path, "rb") as file:
        file.seek(offset)
        for line in file:
            start, offset = offset, offset + len(line)
            try:
                yield offset, line.decode("utf-8-sig" if start == 0 else "utf-8")
            except UnicodeDecodeError as error:
                message = f"{path}: byte {start + error.start} is not UTF-8; expected a file in UTF-8"
                raise UserError(message) from error


def read_jsonl(path: str | Path, required: Sequence[str] = ()) -> Rows:
    """Rows of a file with one JSON object a line; empty lines are skipped.

    Raises:
        UserError: the file is missing, not UTF-8, or has a line that is no object (its number is named).
    """
    path = Path(path)
    starts: list[int] = []
    columns: tuple[str, ...] = ()
    for start, row in _objects(path):
        require(row, required, f"{path}, row {len(starts) + 1}")
        columns = columns or tuple(row)
        starts.append(start)

    def read(indices: Sequence[int] | None, pictures: bool) -> Iterator[Record]:
        if indices is None:
            yield from (row for _, row in _objects(path))
        else:
            yield from (next(_objects(path, starts[index]))[1] for index in indices)

    return Rows(read, len(starts), str(path), columns)


def _objects(path: Path, offset: int = 0) -> Iterator[tuple[int, Record]]:
    for number, (end, line) in enumerate(_lines(path, offset), 1):
        start, offset = offset, end
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise UserError(f"{path}, line {number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number}: got {type(row).__name__}, expected a JSON object")
        yield start, row


def read_tsv(
    path: str | Path,
    picture_columns: Sequence[str] = (),
    required: Sequence[str] = (),
    key: str = "index",
    pictures: bool = True,
) -> Rows:
    """Rows of a tab-separated file with a heading; every other value is a string.

    Args:
        path: the file; fields may be quoted, hold line breaks, and be of any length.
        picture_columns: columns with base64 pictures. A short number in place of a picture is the `key` of the row
            that holds it, and is followed.
        required: columns without which this is not the data that was meant.
        key: the column that such numbers speak of.
        pictures: False leaves the picture columns out.

    Raises:
        UserError: missing file or columns, wrong encoding, a row with more or fewer fields than the heading, a
            picture that refers to a row that is not there.
    """
    path = Path(path)
    table = _Table(path)
    require(table.columns, required, path)
    shown = [name for name in picture_columns if name in table.columns]
    by_key: dict[str, int] = {}
    references: list[tuple[str, str]] = []
    for number, row in enumerate(table.rows()):
        by_key.setdefault(row.get(key, ""), number)
        references += [(row.get(key, ""), row[name].strip()) for name in shown if is_reference(row[name])]
    for owner, reference in references:
        if reference not in by_key:
            raise UserError(f"{path}: the picture of {key} {owner} refers to {key} {reference}, which is not there")

    def picture(row: Record, name: str) -> Picture | None:
        title = f"{path.name} {key} {row.get(key, '?')}"
        if not row[name].strip():
            return None
        if not is_reference(row[name]):
            return Picture.from_base64(row[name], title)
        return Picture(name=title, reader=lambda: follow(row[name].strip(), name, title))

    def follow(reference: str, name: str, title: str) -> bytes:
        for _ in range(8):
            if reference not in by_key:
                break
            text = table.row(by_key[reference])[name]
            if not is_reference(text):
                return Picture.from_base64(text, title).bytes()
            reference = text.strip()
        raise UserError(f"picture {title}: row {reference} that it refers to holds no picture")

    def read(indices: Sequence[int] | None, with_pictures: bool) -> Iterator[Record]:
        found = table.rows() if indices is None else (table.row(index) for index in indices)
        for row in found:
            held = {name: picture(row, name) for name in shown} if with_pictures else {}
            yield {name: held[name] if name in held else row[name] for name in row if name in held or name not in shown}

    return Rows(read, len(table), str(path), table.columns, pictures)


def is_reference(text: str) -> bool:
    """Whether a picture cell is the number of another row."""
    return len(text.strip()) <= LONGEST_REFERENCE and text.strip().isdecimal()


class _Table:
    """A TSV file of which only the places of its rows are kept."""

    def __init__(self, path: Path) -> None:
        csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
        self.path = path
        heading = next(self._records(0), None)
        if heading is None:
            raise UserError(f"{path} is empty; expected a heading and tab-separated rows")
        self._after_heading, self.columns = heading
        self._starts: list[int] = []

    def __len__(self) -> int:
        if not self._starts:
            for _ in self.rows():
                pass
        return len(self._starts)

    def rows(self) -> Iterator[dict[str, str]]:
        start, starts = self._after_heading, []
        for end, fields in self._records(start):
            if fields:
                starts.append(start)
                yield self._row(fields, len(starts))
            start = end
        self._starts = starts

    def row(self, index: int) -> dict[str, str]:
        return self._row(next(self._records(self._starts[index]))[1], index + 1)

    def _row(self, fields: list[str], number: int) -> dict[str, str]:
        if len(fields) != len(self.columns):
            raise UserError(
                f"{self.path}, row {number}: {len(fields)} fields, expected the heading's {len(self.columns)} "
                f"separated by tabs"
            )
        return dict(zip(self.columns, fields, strict=True))

    def _records(self, offset: int) -> Iterator[tuple[int, list[str]]]:
        end = offset

        def lines() -> Iterator[str]:
            nonlocal end
            for after, line in _lines(self.path, offset):
                end = after
                yield line

        try:
            for fields in csv.reader(lines(), delimiter="\t"):
                yield end, fields
        except csv.Error as error:
            raise UserError(f"{self.path} is not a tab-separated table: {error}") from error
