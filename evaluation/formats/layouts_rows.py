"""The two things that every data layout gives: lazy pictures, and rows that can be walked as often as one likes."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

from PIL import Image, ImageOps, UnidentifiedImageError

from vargpt_lightning.evaluation.base.benchmark import Record
from vargpt_lightning.utils.errors import UserError


@dataclass(frozen=True)
class Picture:
    """A picture that is read and decoded when it is opened: its bytes, a file, or a way to read the bytes.

    `name` says which one it is, in messages and in tables.
    """

    data: bytes | None = field(default=None, repr=False)
    path: Path | None = None
    name: str = ""
    reader: Callable[[], bytes] | None = field(default=None, repr=False, compare=False)

    @classmethod
    def from_base64(cls, text: str, name: str = "") -> Picture:
        """A picture written as base64, which is decoded when it is opened."""
        return cls(name=name, reader=lambda: _from_base64(text, name))

    def bytes(self) -> bytes:
        """The encoded picture. Raises UserError naming it when it cannot be read."""
        try:
            if self.data is not None:
                return self.data
            if self.reader is not None:
                return self.reader()
            if self.path is not None:
                return self.path.read_bytes()
        except OSError as error:
            raise UserError(f"picture {self}: {error.strerror or error}") from error
        raise UserError(f"picture {self}: there are no bytes and no file")

    def open(self) -> Image.Image:
        """The picture as RGB and upright, as the public mirrors' own reader gives it.

        Transparency is dropped, not painted: the references do so, and their numbers are compared with ours.

        Raises:
            UserError: the picture is missing or does not decode; the message names it.
        """
        content = self.bytes()
        try:
            with Image.open(io.BytesIO(content)) as picture:
                picture.load()
                return ImageOps.exif_transpose(picture).convert("RGB")
        except UnidentifiedImageError as error:  # its own text has an address that differs each time
            raise UserError(f"picture {self} does not decode ({len(content)} bytes): no known format") from error
        except (OSError, SyntaxError, ValueError, ArithmeticError, Image.DecompressionBombError) as error:
            raise UserError(f"picture {self} does not decode ({len(content)} bytes): {error}") from error

    def __str__(self) -> str:
        return self.name or str(self.path or "without a name")


def _from_base64(text: str, name: str) -> bytes:
    try:
        # Data URLs and line breaks occur; anything else that is no base64 is an error, not skipped.
        content = text.partition("base64,")[2] if "base64," in text[:64] else text
        return base64.b64decode("".join(content.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise UserError(f"picture {name or 'without a name'} is not base64: {error}") from error


def image_in(folder: Path, name: str) -> Picture:
    """The picture of that name in a folder, which need not be there until it is opened.

    Raises:
        UserError: the name leads out of the folder.
    """
    path = folder / name
    if not str(name).strip() or "\0" in str(name) or not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"picture {str(name)!r}: expected the name of a file inside {folder}")
    return Picture(path=path, name=str(name))


Reader = Callable[[Sequence[int] | None, bool], Iterator[Record]]
"""(indices in ascending order or None for all, with pictures) -> the records."""


class Rows(Sequence[Record]):
    """Records that are read from their source each time they are walked, so that memory stays flat.

    Args:
        read: gives the records at ascending indices (None: all), with or without their pictures.
        length: how many there are.
        source: what they are read from.
        columns: the names that every record has, as far as they are known.
        pictures: whether the records have their pictures.

    `skipped` lists what was left out when the rows were loaded, and why.
    """

    def __init__(
        self, read: Reader, length: int, source: str, columns: Sequence[str] = (), pictures: bool = True
    ) -> None:
        self._read = read
        self._length = length
        self.source = source
        self.columns = tuple(columns)
        self.pictures = pictures
        self.skipped: list[str] = []

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Record]:
        return self._read(None, self.pictures)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Rows: ...
    def __getitem__(self, index: int | slice) -> Record | Rows:
        if isinstance(index, slice):
            return self.take(range(self._length)[index])
        if not -self._length <= index < self._length:
            raise IndexError(f"row {index} of {self._length}")
        return next(iter(self._read([index % self._length], self.pictures)))

    def without_pictures(self) -> Rows:
        """The same rows with the picture columns unread."""
        return self._like(self._read, self._length, pictures=False)

    def take(self, indices: Iterable[int]) -> Rows:
        """The rows at these indices, in ascending order; only what holds them is read."""
        chosen = sorted(set(indices))
        if chosen and not 0 <= chosen[0] <= chosen[-1] < self._length:
            raise IndexError(f"rows {chosen[0]} to {chosen[-1]} of {self._length}")

        def read(wanted: Sequence[int] | None, pictures: bool) -> Iterator[Record]:
            return self._read(chosen if wanted is None else [chosen[place] for place in wanted], pictures)

        return self._like(read, len(chosen))

    def where(self, keep: Callable[[Record], bool]) -> Rows:
        """The rows that are kept; this walks them once, without pictures."""
        return self.take([index for index, row in enumerate(self._read(None, False)) if keep(row)])

    def map(self, change: Callable[[Record], Record]) -> Rows:
        """The rows, each changed as it is read; `change` gets a record of its own and may return it."""

        def read(wanted: Sequence[int] | None, pictures: bool) -> Iterator[Record]:
            return (change(row) for row in self._read(wanted, pictures))

        return self._like(read, self._length)

    def _like(self, read: Reader, length: int, pictures: bool | None = None) -> Rows:
        rows = Rows(read, length, self.source, self.columns, self.pictures if pictures is None else pictures)
        rows.skipped = [*self.skipped]
        return rows


def records(
    factory: Callable[[], Iterable[Record]], length: int | None = None, source: str = "", pictures: bool = True
) -> Rows:
    """Rows over whatever a function gives each time it is called; without a length they are counted once.

    Each record is handed out as a copy of its first level, so that what walks the rows cannot change them.
    """

    def read(wanted: Sequence[int] | None, with_pictures: bool) -> Iterator[Record]:
        chosen = None if wanted is None else iter(wanted)
        following = None if chosen is None else next(chosen, None)
        for index, row in enumerate(factory()):
            if chosen is not None:
                if following is None:
                    return
                if index != following:
                    continue
                following = next(chosen, None)
            yield dict(row) if with_pictures else {k: v for k, v in row.items() if not holds_pictures(v)}

    count = sum(1 for _ in factory()) if length is None else length
    first = next(iter(factory()), {}) if count else {}
    return Rows(read, count, source, tuple(first), pictures)


def holds_pictures(value: Any) -> bool:
    """Whether a value is a picture or a list of pictures."""
    return isinstance(value, Picture) or (isinstance(value, (list, tuple)) and any(map(holds_pictures, value)))


def require(rows: Rows | Mapping[str, Any] | Iterable[str], columns: Iterable[str], path: str | Path) -> None:
    """Raises UserError that names the columns (or fields) that are missing, and those that are there."""
    there = list(rows.columns if isinstance(rows, Rows) else rows)
    missing = [column for column in columns if column not in there]
    if missing:
        raise UserError(f"{path}: {', '.join(missing)} missing; there are {', '.join(map(str, there)) or 'none'}")
