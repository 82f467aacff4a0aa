"""One part of a source made into members of a tar archive, by itself: what each packing process does.

A part becomes two files: `part-000012.tarpart`, its samples' members as they will stand in shards, and
`part-000012.json`, what lies where, and the rows that were rejected. The second one is there only when both are whole.
"""

from __future__ import annotations

import importlib
import json
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from vargpt_lightning.data.images.picture_files import MAX_PIXELS
from vargpt_lightning.data.packing.pictures import PictureFiles
from vargpt_lightning.data.shards.format import member_key, sample_members
from vargpt_lightning.data.shards.records import DRAWN, SEEN, Record
from vargpt_lightning.data.sources.base import pictures_through
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import read_json, write_bytes

_BLOCK = 512


class PackedRow(NamedTuple):
    """A sample in a part: how long its members are, where each begins in it, and what statistics need.

    `places` are [offset, length] of the JSON and of each picture, counted from the sample's first byte.
    """

    id: str
    length: int
    places: list[list[int]]
    source: str
    kind: str
    turns: int
    seen: int
    drawn: int
    characters: int
    picture_bytes: int


class RejectedRow(NamedTuple):
    """A row that was not packed, and why."""

    id: str
    source: str
    reason: str


@dataclass(frozen=True)
class PartTask:
    """A part to be packed: `module` is the full name of the source's module, `folder` where the result goes.

    `resize` is the longest short side of pictures in pixels; None keeps their own bytes. Pictures of more than
    `max_pixels` are refused.
    """

    number: int
    module: str
    part: Any
    folder: Path
    resize: int | None = None
    max_pixels: int = MAX_PIXELS

    @property
    def listing(self) -> Path:
        """The file that says what the part holds."""
        return self.folder / f"part-{self.number:06d}.json"

    @property
    def data(self) -> Path:
        """The file of the part's samples."""
        return self.folder / f"part-{self.number:06d}.tarpart"

    def remove(self) -> None:
        """Remove what the part left."""
        self.listing.unlink(missing_ok=True)
        self.data.unlink(missing_ok=True)


def pack_part(task: PartTask) -> int:
    """Write the part's two files, unless they are there already; return the part's number."""
    if not task.listing.is_file():
        rows: list[PackedRow | RejectedRow] = []
        files = PictureFiles(task.resize, task.max_pixels)
        temporary = task.data.with_name(f".{task.data.name}.{os.getpid()}.tmp")
        try:
            with open(temporary, "wb") as file, pictures_through(files):
                for row, content in _rows(task, files):
                    rows.append(row)
                    file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, task.data)
        finally:
            temporary.unlink(missing_ok=True)
        write_bytes(task.listing, json.dumps(rows, separators=(",", ":")).encode())
    return task.number


def read_part_rows(task: PartTask) -> list[PackedRow | RejectedRow]:
    """Return the rows of a part that is packed, those that were rejected in their places."""
    rows = read_json(task.listing)
    return [RejectedRow(*row) if len(row) == len(RejectedRow._fields) else PackedRow(*row) for row in rows]


def _rows(task: PartTask, files: PictureFiles) -> Iterator[tuple[PackedRow | RejectedRow, bytes]]:
    for row in importlib.import_module(task.module).read_part(task.part):
        if not isinstance(row, Record):
            yield RejectedRow(_utf8(row.id), _utf8(row.source), _utf8(row.reason)), b""
            continue
        try:
            yield _packed(files.of(row))
        except (UserError, UnicodeError) as error:
            reason = f"text that UTF-8 cannot hold ({error})" if isinstance(error, UnicodeError) else str(error)
            yield RejectedRow(_utf8(row.id), _utf8(row.source), _utf8(reason)), b""


def _utf8(text: str) -> str:
    """The text with what UTF-8 cannot hold (half of a surrogate pair) replaced."""
    return str(text).encode("utf-8", "replace").decode()


def _packed(record: Record) -> tuple[PackedRow, bytes]:
    if not member_key(record.id):
        raise UserError("the id is empty")
    content, places = encode_sample(member_key(record.id), sample_members(record))
    pictures = record.pictures()
    row = PackedRow(
        id=record.id,
        length=len(content),
        places=places,
        source=record.source,
        kind=record.kind,
        turns=len(record.turns),
        seen=sum(part.use == SEEN for part in pictures),
        drawn=sum(part.use == DRAWN for part in pictures),
        characters=sum(map(len, record.texts())),
        picture_bytes=sum(len(part.data or b"") for part in pictures),
    )
    return row, content


def encode_sample(key: str, members: Mapping[str, bytes]) -> tuple[bytes, list[list[int]]]:
    """Return a sample's members as tar blocks, in the order of their names, and where each one's content is.

    The places are those of the JSON and then of each picture: [offset, length], from the first byte.
    """
    blocks, at, places = [], 0, dict[str, list[int]]()
    for ending, data in sorted(members.items()):
        header = _header(f"{key}.{ending}", len(data))
        places[ending.split(".")[0]] = [at + len(header), len(data)]
        blocks += [header, data, bytes(-len(data) % _BLOCK)]
        at += len(header) + len(data) + -len(data) % _BLOCK
    pictures = sorted((name for name in places if name != "json"), key=int)
    return b"".join(blocks), [places["json"], *(places[name] for name in pictures)]


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o444, 0
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def renamed(content: bytes, row: PackedRow, name: str) -> tuple[bytes, PackedRow]:
    """Return a sample under another id."""
    (at, length), *places = row.places
    value = json.loads(content[at : at + length])
    record = Record.from_json(value, [content[start : start + size] for start, size in places])
    record = replace(record, id=name)
    new, spots = encode_sample(member_key(name), sample_members(record))
    return new, row._replace(id=name, length=len(new), places=spots)


def summed(rows: Sequence[PackedRow]) -> dict[str, dict[str, int]]:
    """Return counts of rows by source: records, turns, pictures seen and drawn, characters, bytes of pictures."""
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        counts = found.setdefault(row.source, dict.fromkeys(COUNTED, 0))
        counts["count"] += 1
        counts["text_only"] += row.seen + row.drawn == 0
        for name in ("turns", "seen", "drawn", "characters", "picture_bytes"):
            counts[name] += getattr(row, name)
    return found


COUNTED = ("count", "text_only", "turns", "seen", "drawn", "characters", "picture_bytes")
