"""Rows of JSON files: a list of objects of any size, or one object a line; read in pieces, never as a whole."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from vargpt_lightning.data.sources.base import ROWS_PER_PART, Part, RowError, need
from vargpt_lightning.utils.errors import UserError

EXPECTED = "a JSON list of objects, or one JSON object a line"
PART_BYTES = 32 * 2**20
_CHUNK = 2**20
_ROW_LIMIT = 64 * 2**20  # a row this long is a file that is broken
_SLACK = 64  # an error this near to the end of what was read may be the cut's alone
_SPACE = " \t\r\n"
_BOM = b"\xef\xbb\xbf"
# control characters inside texts are taken, and judged where texts are
_DECODER = json.JSONDecoder(strict=False)


def json_files(path: Path, prefer: str = "") -> list[Path]:
    """Return the file, or the JSON files of a folder in the order of their names (`prefer` alone if it is there)."""
    need(path, EXPECTED)
    if not path.is_dir():
        return [path]
    if prefer and (path / prefer).is_file():
        return [path / prefer]
    files = sorted(file for file in path.iterdir() if file.suffix in (".json", ".jsonl") and file.is_file())
    if not files:
        raise UserError(f"{path}: no .json or .jsonl file in this folder; expected {EXPECTED}")
    return files


def json_parts(
    source: str, path: Path, options: Mapping[str, Any], *, rows: int = ROWS_PER_PART, prefer: str = ""
) -> list[Part]:
    """Return pieces of about `rows` rows of a file, or of each of a folder's; all rows are walked once to find them.

    Raises UserError when a file is cut off or is no such JSON.
    """
    files = json_files(path, prefer)
    found: list[Part] = []
    for file in files:
        # ids must differ between the files of a folder
        settings = {**options, "label": f"{file.stem}-" if len(files) > 1 else ""}
        first, start, stop, count = 0, 0, 0, 0
        for begin, end in _spans(file):
            if count and (count == rows or end - start > PART_BYTES):
                found.append(Part(source, file, start, stop, first, settings))
                first, count = first + count, 0
            if not count:
                start = begin
            stop, count = end, count + 1
        if count:
            found.append(Part(source, file, start, stop, first, settings))
    return found


def json_rows(part: Part) -> Iterator[tuple[int, Any]]:
    """Yield the rows of a piece with their numbers in the file; a line that is no JSON is a RowError."""
    with open(part.path, "rb") as file:
        is_list = _opening(file) == "["
        file.seek(part.start)
        data = file.read() if part.stop is None else file.read(part.stop - part.start)
    if part.stop is not None and len(data) < part.stop - part.start:
        raise UserError(f"{part.path}: {len(data)} bytes from {part.start} on; the file was cut while it was read")
    # bytes that are no UTF-8 become lone surrogates, and their rows are refused as such
    if is_list:
        yield from enumerate(_values(part, data.decode("utf-8", "surrogateescape")), part.first)
        return
    lines = (line for line in data.split(b"\n") if line.strip())
    for number, line in enumerate(lines, part.first):
        yield number, _line(line.decode("utf-8", "surrogateescape"), number)


def _values(part: Part, text: str) -> Iterator[Any]:
    at = 0
    while at < len(text):
        if text[at] in _SPACE + ",":
            at += 1
            continue
        try:
            value, at = _DECODER.raw_decode(text, at)
        except ValueError as error:
            raise UserError(f"{part.path}: {error}; the file changed while it was read") from error
        yield value


def _line(text: str, number: int) -> Any:
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError) as error:
        return RowError(f"line {number + 1} is no JSON ({error})")


def _spans(path: Path) -> Iterator[tuple[int, int]]:
    """Yield the first and last byte of each row of a file."""
    with open(path, "rb") as file:
        opening = _opening(file)
        if opening == "[":
            yield from _list_spans(path, file)
        elif opening == "{":
            yield from _line_spans(path, file)
        else:
            found = f"begins with {opening!r}" if opening else "is empty"
            raise UserError(f"{path}: the file {found}; expected {EXPECTED}")


def _opening(file: BinaryIO) -> str:
    """The first character that is no white space; the file is left where the text begins."""
    start = len(_BOM) if file.read(len(_BOM)) == _BOM else 0
    file.seek(start)
    while chunk := file.read(_CHUNK):
        if rest := chunk.lstrip():
            file.seek(start)
            return rest[:1].decode("latin-1")
    return ""


def _line_spans(path: Path, file: BinaryIO) -> Iterator[tuple[int, int]]:
    at, number = file.tell(), 0
    for line in file:
        if line.strip():
            # only the ends are tried here: a wrong line in the middle is one bad row
            if number == 0 or not line.endswith(b"\n"):
                value = _line(line.decode("utf-8", "surrogateescape"), number)
                if isinstance(value, RowError):
                    what = "cut off at the end" if number else "not of the right form"
                    raise UserError(f"{path}: {what}: {value}; expected {EXPECTED}")
            yield at, at + len(line)
            number += 1
        at += len(line)


def _list_spans(path: Path, file: BinaryIO) -> Iterator[tuple[int, int]]:
    window = _Window(path, file)
    window.take("[")
    if window.peek() == "]":
        return
    while True:
        window.peek()
        yield window.value()
        if window.take(",]") == "]":
            break
    if rest := window.peek():
        raise UserError(f"{path}: {rest!r} after the end of the list at byte {window.byte}; expected {EXPECTED}")


class _Window:
    """A stretch of a file read as Latin-1: JSON's own characters are ASCII, so places in it are bytes of the file."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.file = path, file
        self.base, self.at, self.text = file.tell(), 0, ""

    @property
    def byte(self) -> int:
        return self.base + self.at

    def fill(self) -> bool:
        """Read on, forgetting what is done with; False at the end of the file."""
        more = self.file.read(max(_CHUNK, len(self.text) - self.at))
        self.base += self.at
        self.text, self.at = self.text[self.at :] + more.decode("latin-1"), 0
        return bool(more)

    def peek(self) -> str:
        """The next character that is no white space, "" at the end of the file."""
        while True:
            while self.at < len(self.text):
                if self.text[self.at] not in _SPACE:
                    return self.text[self.at]
                self.at += 1
            if not self.fill():
                return ""

    def take(self, wanted: str) -> str:
        found = self.peek()
        if not found:
            raise UserError(f"{self.path}: cut off at byte {self.byte}; expected {EXPECTED}")
        if found not in wanted:
            raise UserError(f"{self.path}: {found!r} at byte {self.byte} where one of {wanted!r} belongs; no JSON list")
        self.at += 1
        return found

    def value(self) -> tuple[int, int]:
        """Pass one value; return its first byte and the one after it."""
        while True:
            try:
                _, end = _DECODER.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                here = f"{self.path}: byte {self.base + error.pos}: {error.msg}"
                inside = error.pos < len(self.text) - _SLACK and not error.msg.startswith("Unterminated")
                if inside or len(self.text) - self.at > _ROW_LIMIT:
                    raise UserError(f"{here}; expected {EXPECTED}") from error
                if not self.fill():
                    raise UserError(f"{here}: the file is cut off; expected {EXPECTED}") from error
            except RecursionError as error:
                raise UserError(f"{self.path}: byte {self.byte}: nested too deep; expected {EXPECTED}") from error
            else:
                # a number may go on after the last character that was read
                if end == len(self.text) and self.fill():
                    continue
                start, self.at = self.byte, end
                return start, self.base + end
