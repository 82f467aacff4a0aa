"""ImageNet as single-turn dialogues, a request for a class and its picture: the data of the paper's first stage."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from vargpt_lightning.data.shards.records import Record
from vargpt_lightning.data.sources.base import (
    ROWS_PER_PART,
    Part,
    Rejected,
    Row,
    RowError,
    need,
    read_all,
    row_id,
    with_pictures,
)
from vargpt_lightning.data.sources.endings import is_picture, unread_reason
from vargpt_lightning.data.sources.parquet_rows import parquet_parts, parquet_rows, picture_bytes
from vargpt_lightning.data.sources.phrases import drawn_thing
from vargpt_lightning.data.sources.picture_index import imagenet_id
from vargpt_lightning.data.sources.picture_store import find_archives
from vargpt_lightning.data.sources.tars import members, read_member, tar_parts
from vargpt_lightning.utils.errors import UserError

NAME = "imagenet"
CLASSES = Path(__file__).with_name("imagenet_classes.txt")
EXPECTED = "ImageNet as class folders, tar archives or parquet files with image and label"
_WNID = re.compile(r"n\d{8}")
_BASES = ("{split}", "ILSVRC/Data/CLS-LOC/{split}", "CLS-LOC/{split}", "")


def parts(
    path: Path,
    *,
    pictures: Path | None = None,
    split: str = "train",
    classes: Path | None = None,
    seed: int = 0,
) -> list[Part]:
    """Return pieces of ImageNet, for `read_part`.

    Args:
        path: class folders (n01440764/n01440764_10026.JPEG, or folders named for their classes, also below train/),
            tar archives (one of pictures, one of class archives, or webdataset's), or parquet files with `image` of
            `bytes` and `path`, and `label`.
        pictures: not used here, they lie in `path`.
        split: the sub-folder, or how the names of archives and parquet files begin or end ("train-00000-of-00294").
        classes: a file with an id and its names a line ("n01440764 tench, Tinca tinca"); the built-in one by default.
        seed: of the wording.

    Raises:
        UserError: there is nothing of these, or a file of them is broken.
    """
    path = need(Path(path), EXPECTED)
    options = {"classes": str(classes or CLASSES), "seed": seed}
    class_names(options["classes"])
    archives = find_archives(path)
    if path.is_file() and not archives:
        raise UserError(f"{path}: is a file of another kind; expected {EXPECTED}")
    files = _of_split(archives, split)
    found: list[Part] = []
    for file in files:
        if file.suffix.lower() == ".parquet":
            found += parquet_parts(NAME, file, options, ["image"])
        else:
            found += tar_parts(NAME, file, options, lambda name: name if _counts(name) else None)
    if not archives:
        found = _folder_parts(path, split, options)
    if not found:
        raise UserError(f"{path}: no picture of split {split!r} found; expected {EXPECTED}")
    return found


def read_part(part: Part) -> Iterator[Row]:
    """Read one piece."""
    if part.path.is_dir():
        rows = _from_folder(part)
    elif part.path.suffix.lower() == ".parquet":
        rows = _from_parquet(part)
    else:
        rows = _from_tar(part)
    names = class_names(part.options["classes"])
    for place, path, label, data in rows:
        yield _row(part, place, path, label, data, names)


def read(
    path: Path,
    *,
    pictures: Path | None = None,
    split: str = "train",
    classes: Path | None = None,
    seed: int = 0,
) -> Iterator[Row]:
    """Read all of it; see `parts`."""
    return read_all(parts(path, split=split, classes=classes, seed=seed), read_part)


@lru_cache(maxsize=4)
def class_names(path: str) -> dict[str, str]:
    """Return the first name of each class by its WordNet id, in the order of labels; UserError for a wrong file."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise UserError(f"{path}: {error}; expected a file of lines such as 'n01440764 tench, Tinca tinca'") from error
    found = {}
    for number, line in enumerate(filter(str.strip, lines), 1):
        key, _, names = line.strip().partition(" ")
        if not _WNID.fullmatch(key) or not names.strip():
            raise UserError(f"{path}, line {number}: {line[:80]!r}; expected such as 'n01440764 tench, Tinca tinca'")
        found[key] = names.split(",")[0].strip()
    return dict(sorted(found.items()))


def _of_split(files: list[Path], split: str) -> list[Path]:
    """The files named for the split, else those that are named for none."""
    named = [file for file in files if split in file.stem]
    return named or [file for file in files if not any(word in file.stem for word in ("train", "val", "test"))]


_Found = tuple[str, str, int | None, bytes | None]  # place in the input, name, label, the encoded picture


def _folder_parts(path: Path, split: str, options: dict[str, Any]) -> list[Part]:
    bases = [path / base.format(split=split) for base in _BASES]
    base = next(base for base in bases if base.is_dir() or base == path)
    found: list[Part] = []
    folders = sorted(folder for folder in base.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    for folder in folders:
        count = len(_pictures(folder))
        for start in range(0, count, ROWS_PER_PART):
            stop = min(count, start + ROWS_PER_PART)
            found.append(Part(NAME, folder, start, stop, start, options))
    return found


@lru_cache(maxsize=2)
def _pictures(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if _counts(file.name))


def _counts(name: str) -> bool:
    """Whether a file makes a row: pictures of kinds that are not read do too, and are refused."""
    return is_picture(name) or unread_reason(name) is not None


def _from_folder(part: Part) -> Iterator[_Found]:
    for name in _pictures(part.path)[part.start : part.stop]:
        try:
            data = (part.path / name).read_bytes()
        except OSError:
            data = None
        yield Path(name).stem, f"{part.path.name}/{name}", None, data


def _from_tar(part: Part) -> Iterator[_Found]:
    for member in members(part.path, part.start, part.stop):
        if _counts(member.name):
            data = read_member(part.path, member.offset, member.size)
            yield f"{part.path.stem}-{member.offset}", member.name, None, data


def _from_parquet(part: Part) -> Iterator[_Found]:
    for number, row in parquet_rows(part, ["image", "label"]):
        if isinstance(row, RowError):  # its path is no text: there is nothing to know it by
            yield f"{part.path.stem}-{number}", "", None, None
            continue
        data, path = picture_bytes(row["image"])
        label = row.get("label")
        yield f"{part.path.stem}-{number}", path, label if isinstance(label, int) else None, data


def _row(part: Part, place: str, path: str, label: int | None, data: bytes | None, names: dict[str, str]) -> Row:
    found = imagenet_id(path)
    name = found or row_id(Path(path).parent.name, place)
    try:
        if data is not None and (reason := unread_reason(path)):
            raise RowError(f"picture {path!r}: {reason}")
        wnid, thing = _class(path, label, names)
        key = f"imagenet/{found}" if found else f"imagenet/{thing}/{name}"
        turns = drawn_thing(thing, key, data, part.options["seed"], name)
        record = Record(name, NAME, turns, {"kind": "generation", "class": wnid})
        return with_pictures(record, lambda _: _there(data))
    except RowError as error:
        return Rejected(name, NAME, str(error))


def _class(path: str, label: int | None, names: dict[str, str]) -> tuple[str, str]:
    """The class's id and name: by the label, the ids in the picture's path, or the folder it lies in."""
    if label is not None and 0 <= label < len(names):
        return list(names.items())[label]
    ids = _WNID.findall(path)
    known = [wnid for wnid in ids if wnid in names]
    if known:
        return known[-1], names[known[-1]]
    folder = Path(path).parent.name
    if ids or not folder:
        raise RowError(f"picture {path!r} with label {label}: its class is not among the {len(names)} known")
    return folder, re.sub(r"[_\s]+", " ", folder).strip()


def _there(data: bytes | None) -> bytes:
    if data is None:
        raise RowError("the picture has no bytes or cannot be read")
    return data
