"""Where each picture of an archive lies, in a small database beside the prepared data: built once, flat in memory."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from vargpt_lightning.data.shards.format import cache_root
from vargpt_lightning.data.sources.parquet_rows import open_parquet
from vargpt_lightning.data.sources.tars import members, plain_name, safe_name
from vargpt_lightning.utils.errors import UserError

_VERSION = 2
_IMAGENET = re.compile(r"ILSVRC2012_(?:val|test)_\d{8}|n\d{8}_\d+")
_SHARD = re.compile(r"[-_.]\d+(?:-of-\d+)?$")
_TABLES = """
CREATE TABLE archives (number INTEGER PRIMARY KEY, file INTEGER, inside TEXT);
CREATE TABLE pictures (
    stem TEXT, ending TEXT, archive INTEGER, at INTEGER, size INTEGER, PRIMARY KEY (stem, ending, archive, at, size)
) WITHOUT ROWID;
"""

KeyOf = Callable[[str], str]


class Place(NamedTuple):
    """Where a picture lies: the archive, and byte and length in a tar, or row group and row in a parquet file."""

    file: Path
    at: int
    size: int


class Found(NamedTuple):
    """A picture of a stem: its ending as it is written (with its dot), and the archive, named as a folder would be."""

    ending: str
    archive: str
    place: Place


def imagenet_id(name: str) -> str | None:
    """Return the ImageNet id in a picture's name (n01440764_10026, ILSVRC2012_val_00000293), None without one."""
    found = _IMAGENET.search(name)
    return found[0] if found else None


def by_path(name: str) -> str:
    """The key of pictures that are asked for by their paths."""
    return plain_name(name)


def by_imagenet_id(name: str) -> str:
    """The key of pictures that are asked for by their ImageNet ids, wherever they lie."""
    return imagenet_id(name) or plain_name(name)


def split_key(key: str) -> tuple[str, str]:
    """Return a key's path without the ending of its file, and that ending with its dot; ImageNet's ids have none."""
    path = PurePosixPath(key)
    return (key, "") if _IMAGENET.fullmatch(key) else (key.removesuffix(path.suffix), path.suffix)


def names_folder(archive: str, folder: str) -> bool:
    """Whether an archive stands for a folder: `gqa.tar`, `gqa-00001.tar`, `gqa/00001.tar` or `all.tar` with gqa.tar."""
    wanted, parts = folder.split("/"), archive.split("/")
    starts = range(len(parts) - len(wanted) + 1)
    runs = (parts[start : start + len(wanted)] for start in starts)
    return any(run[:-1] == wanted[:-1] and wanted[-1] in (run[-1], _SHARD.sub("", run[-1])) for run in runs)


class PictureIndex:
    """The places of all pictures of some archives, by key: each archive's own, whatever others hold.

    `names` are the archives' paths as a list of pictures may write them, without their endings. The index is kept below
    the folder of prepared data under a name that tells the archives, their sizes and times.
    """

    def __init__(
        self, files: Sequence[Path], key_of: KeyOf, root: Path | None = None, names: Sequence[str] = ()
    ) -> None:
        self.files = [file.resolve() for file in files]
        self.names = list(names) or [file.stem for file in files]
        self.path = (root or cache_root()).absolute() / "pictures" / f"{self._digest(key_of)}.sqlite"
        if not self.path.is_file():
            self._build(key_of)
        self.database = sqlite3.connect(f"{self.path.as_uri()}?mode=ro&immutable=1", uri=True)

    def find(self, stem: str) -> list[Found]:
        """Return where the pictures of a stem lie, archive by archive; a tar's later member replaces an earlier one."""
        query = """
            SELECT ending, file, inside, at, size FROM pictures JOIN archives ON archive = number
            WHERE stem = ? ORDER BY number, at, size
        """
        found: dict[tuple[object, ...], Found] = {}
        for ending, file, inside, at, size in self.database.execute(query, (stem,)):
            path = self.files[file]
            name = f"{self.names[file]}/{inside}" if inside else self.names[file]
            # a table's rows replace nothing
            same = (ending, file, inside, *((at, size) if path.suffix.lower() == ".parquet" else ()))
            found[same] = Found(ending, name, Place(path, at, size))
        return list(found.values())

    def _digest(self, key_of: KeyOf) -> str:
        try:
            told = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in self.files]
        except OSError as error:
            raise UserError(f"{error.filename}: {error.strerror}; expected an archive of pictures") from error
        return hashlib.sha256(json.dumps([_VERSION, key_of.__name__, told]).encode()).hexdigest()[:32]

    def _build(self, key_of: KeyOf) -> None:
        temporary = self.path.with_suffix(f".{os.getpid()}.tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary.unlink(missing_ok=True)
            with closing(sqlite3.connect(temporary)) as database, database:
                # a half-written index is thrown away, so nothing need be safe on its way
                database.execute("PRAGMA journal_mode = OFF")
                for statement in _TABLES.split(";"):
                    database.execute(statement)
                archives: dict[tuple[int, str], int] = {}
                rows = (
                    (*split_key(key_of(name)), archives.setdefault((number, inside), len(archives)), at, size)
                    for number, file in enumerate(self.files)
                    for name, at, size, inside in entries(file)
                )
                database.executemany("INSERT OR IGNORE INTO pictures VALUES (?, ?, ?, ?, ?)", rows)
                told = ((number, *archive) for archive, number in archives.items())
                database.executemany("INSERT INTO archives VALUES (?, ?, ?)", told)
            os.replace(temporary, self.path)
        except (OSError, sqlite3.Error) as error:
            raise UserError(f"{self.path}: {error}; expected a folder to write in ($VARGPT_CACHE names it)") from error
        finally:
            temporary.unlink(missing_ok=True)


def entries(file: Path) -> Iterator[tuple[str, int, int, str]]:
    """Yield name, place and inner archive of each picture of a tar or a parquet file; unsafe names are left out."""
    found = _parquet_entries(file) if file.suffix.lower() == ".parquet" else _tar_entries(file)
    return (entry for entry in found if safe_name(entry[0]))


def _tar_entries(file: Path) -> Iterator[tuple[str, int, int, str]]:
    return ((member.name, member.offset, member.size, member.inside) for member in members(file))


def _parquet_entries(file: Path) -> Iterator[tuple[str, int, int, str]]:
    with open_parquet(file) as table:
        column, path = picture_columns(file, table)
        if path is None:
            raise UserError(f"{file}: column {column} has no paths; expected image.bytes and image.path")
        for group in range(table.num_row_groups):
            cells = table.read_row_group(group, columns=[path]).column(0).to_pylist()
            names = (cell.get("path") if isinstance(cell, dict) else cell for cell in cells)
            yield from ((name, group, row, "") for row, name in enumerate(names) if isinstance(name, str))


def picture_columns(file: Path, table: object) -> tuple[str, str | None]:
    """Return the names of a parquet file's leaves that hold pictures' bytes and paths (None without paths)."""
    schema = table.schema  # type: ignore[attr-defined]
    leaves = [schema.column(number).path for number in range(len(schema))]
    for column in ("image", "picture", "jpg", "img"):
        if f"{column}.bytes" in leaves:
            path = f"{column}.path"
            return f"{column}.bytes", path if path in leaves else None
    raise UserError(f"{file}: columns {', '.join(leaves)[:200]}; expected image.bytes and image.path")
