"""Pictures looked up by path or ImageNet id in a folder, in tar archives or in parquet files, read when asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from vargpt_lightning.data.sources.base import RowError, need
from vargpt_lightning.data.sources.parquet_rows import open_parquet
from vargpt_lightning.data.sources.picture_index import (
    PictureIndex,
    Place,
    by_imagenet_id,
    by_path,
    imagenet_id,
    picture_columns,
)
from vargpt_lightning.data.sources.tars import plain_name, read_member, safe_name
from vargpt_lightning.errors import UserError

By = Literal["path", "imagenet"]
ENDINGS = (".JPEG", ".jpg", ".jpeg", ".png", ".webp", ".gif", ".JPG", ".PNG")
_ARCHIVES = (".tar", ".parquet")
_GROUP_BYTES = 256 * 2**20  # row groups above this are read through instead of kept
_FOLDERS = 64  # folders below the root that are looked into for archives
_BASES = ("", "train", "val", "ILSVRC/Data/CLS-LOC/train", "ILSVRC/Data/CLS-LOC/val")


class PictureStore:
    """The pictures below `root`: files in folders first, then those in tar archives and parquet files there.

    `root` may be an archive itself. `by` is "path" (`coco/train2017/000000033471.jpg`; an archive `coco.tar` may hold
    the part after `coco/`) or "imagenet": any name with an ImageNet id finds the picture of that id. Without `archives`
    only files in folders count.
    """

    def __init__(self, root: Path, by: By = "path", archives: bool = True) -> None:
        if by not in ("path", "imagenet"):
            raise UserError(f"pictures by {by!r}; expected 'path' or 'imagenet'")
        need(root, "a folder of pictures, a tar archive or a parquet file with image.bytes and image.path")
        self.root, self.by = root, by
        found = find_archives(root) if archives else []
        if root.is_file() and not found:
            raise UserError(f"{root}: expected a folder of pictures, a .tar archive or a .parquet file")
        key_of = by_imagenet_id if by == "imagenet" else by_path
        self.index = PictureIndex(found, key_of) if found else None
        self.group: tuple[Path, int, Any] | None = None

    def read(self, name: str) -> bytes:
        """Return the picture's encoded file; raises RowError when there is none, UserError for a broken archive."""
        name = self._inside(name)
        for path in self._files(name):
            try:
                return path.read_bytes()
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                continue
            except OSError as error:
                raise RowError(f"picture {name!r}: {error.strerror or error} ({path})") from error
        if (place := self._place(name)) is None:
            raise RowError(f"picture {name!r}: not found in {self.root}")
        if place.file.suffix == ".parquet":
            return self._cell(place, name)
        return read_member(place.file, place.at, place.size)

    def _inside(self, name: str) -> str:
        """The name as a path below the root; absolute names count only if they lead there."""
        if name.startswith("/") and self.root.is_dir() and Path(name).is_relative_to(self.root.absolute()):
            name = Path(name).relative_to(self.root.absolute()).as_posix()
        if not safe_name(name):
            raise RowError(f"picture {name!r}: refused: leads out of {self.root}; expected a path inside it")
        return plain_name(name)

    def _files(self, name: str) -> Iterator[Path]:
        if self.root.is_file():
            return
        yield self.root / name
        found = imagenet_id(name) if self.by == "imagenet" else None
        if found is not None:
            for base in _BASES:
                for folder in (f"{base}/{found.split('_')[0]}", base):
                    yield from ((self.root / folder / f"{found}{ending}") for ending in ENDINGS)
            return
        # lists say .jpg where the pictures were had as .png or .gif (OCR-VQA)
        stem = PurePosixPath(name).with_suffix("").as_posix()
        if PurePosixPath(name).suffix in ENDINGS:
            yield from (self.root / f"{stem}{ending}" for ending in ENDINGS if f"{stem}{ending}" != name)

    def _place(self, name: str) -> Place | None:
        if self.index is None:
            return None
        key = (by_imagenet_id if self.by == "imagenet" else by_path)(name)
        if (place := self.index.find(key)) is not None or self.by == "imagenet":
            return place
        top, _, rest = name.partition("/")
        return self.index.find(rest, stem=top) if rest else None

    def _cell(self, place: Place, name: str) -> bytes:
        """The bytes in a row of a parquet file; the last row group read is kept, for pictures asked for in order."""
        if self.group is None or self.group[:2] != (place.file, place.at):
            self.group = None  # before the next one is read: never two in memory
            with open_parquet(place.file) as table:
                column, _ = picture_columns(place.file, table)
                if table.metadata.row_group(place.at).total_byte_size > _GROUP_BYTES:
                    return _filled(_skim(table, place, column), name)
                cells = table.read_row_group(place.at, columns=[column]).column(0)
                self.group = (place.file, place.at, cells)
        cell = self.group[2][place.size].as_py()
        return _filled(cell, name)


def _skim(table: Any, place: Place, column: str) -> Any:
    row = place.size
    for batch in table.iter_batches(batch_size=32, row_groups=[place.at], columns=[column]):
        if row < batch.num_rows:
            return batch.column(0)[row].as_py()
        row -= batch.num_rows
    raise UserError(f"{place.file}: row group {place.at} is shorter than it was; expected the file that was indexed")


def _filled(cell: Any, name: str) -> bytes:
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    if not data:
        raise RowError(f"picture {name!r}: its row has no bytes")
    return bytes(data)


def find_archives(root: Path) -> list[Path]:
    """Return the tar archives and parquet files of a folder and of the folders just below it, by name."""
    if root.is_file():
        return [root] if root.suffix in _ARCHIVES else []
    folders = [root]
    below = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    # folders of classes or of very many kinds hold pictures, and walking them would take long
    if len(below) <= _FOLDERS:
        folders += [root / name for name in below]
    return sorted(
        Path(entry.path)
        for folder in folders
        for entry in os.scandir(folder)
        if entry.name.endswith(_ARCHIVES) and entry.is_file()
    )


def open_pictures(root: str | Path, by: By = "path", archives: bool = True) -> PictureStore:
    """Return the store of a folder or archive; the same one within a process while the last few are in use."""
    # a database's connection must not cross a fork
    return _opened(str(root), by, archives, os.getpid())


@lru_cache(maxsize=8)
def _opened(root: str, by: By, archives: bool, process: int) -> PictureStore:
    return PictureStore(Path(root), by, archives)
