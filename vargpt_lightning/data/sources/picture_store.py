"""Pictures looked up by path or ImageNet id in a folder, in tar archives or in parquet files, read when asked for."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

from vargpt_lightning.data.sources.base import RowError, need
from vargpt_lightning.data.sources.endings import is_picture, picture_endings, unread_endings
from vargpt_lightning.data.sources.parquet_rows import open_parquet
from vargpt_lightning.data.sources.picture_index import (
    PictureIndex,
    Place,
    by_imagenet_id,
    by_path,
    imagenet_id,
    names_folder,
    picture_columns,
    split_key,
)
from vargpt_lightning.data.sources.tars import plain_name, read_member, safe_name
from vargpt_lightning.utils.errors import UserError

By = Literal["path", "imagenet"]
_USUAL = (".JPEG", ".jpg", ".png")  # tried before a folder is listed
_ARCHIVES = (".tar", ".parquet")
_COMPRESSED = (".zip", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")
_GROUP_BYTES = 256 * 2**20  # row groups above this are read through instead of kept
_LISTINGS = 256  # folders whose names are kept
_FOLDERS = 64  # folders below the root that are looked into for archives
_BASES = ("", "train", "val", "ILSVRC/Data/CLS-LOC/train", "ILSVRC/Data/CLS-LOC/val")


class _Candidate(NamedTuple):
    """A picture that a name may mean, the fitting ones first: by its ending, then by the archive's name."""

    other_ending: int
    unnamed: int
    place: Place | Path

    @property
    def file(self) -> Path:
        return self.place if isinstance(self.place, Path) else self.place.file


class PictureStore:
    """The pictures below `root`: files in folders, and those in tar archives and parquet files there.

    `root` may be an archive itself. `by` is "path" (`coco/train2017/000000033471.jpg`; an archive `coco.tar` may hold
    the part after `coco/`) or "imagenet": any name with an ImageNet id finds the picture of that id. Without `archives`
    only files in folders count, without `links` only those that no link leads out of `root` to.

    The exact name counts before its ending in another case, and that before another ending: lists say .jpg where the
    pictures were had as .png or .gif (OCR-VQA). A file counts before an archive, and the archive named for the
    beginning of the path before any other; where several are left whose pictures differ, the name is refused.
    """

    def __init__(self, root: Path, by: By = "path", archives: bool = True, links: bool = True) -> None:
        if by not in ("path", "imagenet"):
            raise UserError(f"pictures by {by!r}; expected 'path' or 'imagenet'")
        need(root, "a folder of pictures, a tar archive or a parquet file with image.bytes and image.path")
        self.root, self.by, self.links = root, by, links
        found = find_archives(root) if archives else []
        if root.is_file() and not found:
            raise UserError(f"{root}: expected a folder of pictures, a .tar archive or a .parquet file")
        key_of = by_imagenet_id if by == "imagenet" else by_path
        self.index = PictureIndex(found, key_of, names=[_folder_name(file, root) for file in found]) if found else None
        self.group: tuple[Path, int, Any] | None = None
        self.listings: dict[Path, dict[str, list[str]]] = {}

    def read(self, name: str) -> bytes:
        """Return the picture's encoded file; raises RowError when there is none, or when it cannot be known which.

        Raises UserError for a broken archive.
        """
        name = self._inside(name)
        if not self.root.is_file() and (data := self._file(self.root / name, name)) is not None:
            return data
        found = self._by_id(name) or self._by_path(name)
        if not found:
            raise RowError(f"picture {name!r}: not found in {self.root}{self._hint}")
        best = [each for each in found if each[:2] == found[0][:2]]
        data = self._content(best[0], name)
        for other in best[1:]:
            if self._content(other, name) != data:
                raise RowError(
                    f"picture {name!r}: {best[0].file} and {other.file} have different pictures of this name; expected "
                    "a path that begins with the name of its folder or archive"
                )
        return data

    @cached_property
    def _hint(self) -> str:
        """What is said of compressed archives, whose members cannot be looked up."""
        names = [] if self.root.is_file() else sorted(entry.name for entry in os.scandir(self.root))
        found = [name for name in names if name.lower().endswith(_COMPRESSED)]
        return f"; {found[0]} is not read: uncompress it first" if found else ""

    def _inside(self, name: str) -> str:
        """The name as a path below the root; absolute names count only if they lead there."""
        if name.startswith("/") and self.root.is_dir() and Path(name).is_relative_to(self.root.absolute()):
            name = Path(name).relative_to(self.root.absolute()).as_posix()
        if not safe_name(name):
            raise RowError(
                f"picture {name!r}: refused: leads out of {self.root}; expected a path inside it, or pictures=FOLDER"
            )
        return plain_name(name)

    def _by_id(self, name: str) -> list[_Candidate]:
        """The first picture of the ImageNet id in a name; one id is one picture, however often it is there."""
        found = imagenet_id(name) if self.by == "imagenet" else None
        if found is None:
            return []
        folders = [] if self.root.is_file() else [self.root / base for base in _BASES]
        for folder in (each for base in folders for each in (base / found.split("_")[0], base)):
            for ending in _USUAL:
                if (folder / f"{found}{ending}").is_file():
                    return [_Candidate(0, 0, folder / f"{found}{ending}")]
            for file in self._listed(folder, found):
                return [_Candidate(0, 0, file)]
        places = self.index.find(found) if self.index else []
        return [_Candidate(0, 0, each.place) for each in places[:1]]

    def _by_path(self, name: str) -> list[_Candidate]:
        stem, ending = split_key(name)
        found: list[_Candidate] = []
        if not self.root.is_file():
            files = self._listed((self.root / stem).parent, PurePosixPath(stem).name)
            found += [_Candidate(_other_ending(file.suffix, ending), 0, file) for file in files]
        parts = stem.split("/")
        for start in range(len(parts)) if self.index else ():
            folder = "/".join(parts[:start])
            for each in self.index.find("/".join(parts[start:])):  # type: ignore[union-attr]
                # the archive may be named by any beginning of a path that its members hold in full
                named = [end for end in range(1, len(parts)) if names_folder(each.archive, "/".join(parts[:end]))]
                if not folder or names_folder(each.archive, folder):
                    unnamed = len(parts) - max(named, default=0)
                    found.append(_Candidate(_other_ending(each.ending, ending), unnamed, each.place))
        known = (*picture_endings(), *unread_endings())
        most = 2 if ending[1:].lower() in known else 1
        return sorted((each for each in found if each.other_ending <= most), key=lambda each: each[:2])

    def _listed(self, folder: Path, stem: str) -> list[Path]:
        """A folder's pictures of a stem, whatever their endings; each folder is listed once."""
        if folder not in self.listings:
            names: dict[str, list[str]] = {}
            with suppress(OSError, ValueError), os.scandir(folder) as entries:
                for entry in entries:
                    if is_picture(entry.name):
                        names.setdefault(split_key(entry.name)[0], []).append(entry.name)
            if len(self.listings) >= _LISTINGS:
                self.listings.clear()
            self.listings[folder] = names
        return [folder / name for name in sorted(self.listings[folder].get(stem, []))]

    def _content(self, candidate: _Candidate, name: str) -> bytes:
        place = candidate.place
        if isinstance(place, Path):
            if (data := self._file(place, name)) is None:
                raise RowError(f"picture {name!r}: {place} is no longer there")
            return data
        return self._cell(place, name) if place.file.suffix.lower() == ".parquet" else read_member(*place)

    def _file(self, path: Path, name: str) -> bytes | None:
        """A file's content, None where there is none."""
        try:
            if not self.links and not within(path, self.root):
                raise RowError(f"picture {name!r}: refused: a link that leads out of {self.root}")
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        except OSError as error:
            raise RowError(f"picture {name!r}: {error.strerror or error} ({path})") from error

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


def within(path: Path, root: Path) -> bool:
    """Whether a path lies below a folder when links are followed; or in the blobs of a snapshot of the hub's cache."""
    root = root.resolve()
    blobs = root.parent.parent / "blobs"
    allowed = (root, blobs) if root.parent.name == "snapshots" else (root,)
    return any(path.resolve().is_relative_to(folder) for folder in allowed)


def _folder_name(file: Path, root: Path) -> str:
    return file.stem if file == root else file.relative_to(root).with_suffix("").as_posix()


def _other_ending(there: str, wanted: str) -> int:
    return 0 if there == wanted else 1 if there.lower() == wanted.lower() else 2


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
        if entry.name.lower().endswith(_ARCHIVES) and entry.is_file()
    )


def open_pictures(root: str | Path, by: By = "path", archives: bool = True, links: bool = True) -> PictureStore:
    """Return the store of a folder or archive; the same one within a process while the last few are in use."""
    # a database's connection must not cross a fork
    return _opened(str(root), by, archives, links, os.getpid())


@lru_cache(maxsize=8)
def _opened(root: str, by: By, archives: bool, links: bool, process: int) -> PictureStore:
    return PictureStore(Path(root), by, archives, links)
