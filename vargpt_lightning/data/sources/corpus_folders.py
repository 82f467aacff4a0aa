"""What a folder of pictures and captions is: archives, tables, a saved data set, an imagefolder, or files in pairs.

a tar, or a folder of them            webdataset's archives
dataset_dict.json, state.json, ...    what `datasets` saves to disk: Arrow files, one folder for each split
metadata.csv, .jsonl or .parquet      an imagefolder: `file_name` names the pictures below the table's folder
data/train-00000-of-00002.parquet     a snapshot of the hub's: tables that hold their pictures
a.jpg and a.txt                       pictures with their captions beside them
apple/1.jpg, pear/1.jpg               pictures in folders named for what they show
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vargpt_lightning.data.sources.base import need
from vargpt_lightning.data.sources.endings import is_picture, unread_reason
from vargpt_lightning.data.sources.tables import ARROW, PARQUET, is_table
from vargpt_lightning.data.sources.tars import safe_name
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import read_json

EXPECTED = (
    "webdataset's tar archives, captions as .jsonl, .csv or .parquet, a folder that `datasets` saved, an imagefolder "
    "(metadata.csv), a.jpg beside a.txt, or folders named for what their pictures show"
)
TEXTS = ("txt", "caption", "text", "json")  # the first that is there counts
_TABLE_NAMES = ("metadata", "captions")
_TABLE_ENDINGS = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
_PACKED = (".gz", ".tgz", ".bz2", ".xz", ".zst", ".zip")  # told to be uncompressed first
OF_DATASETS = ("dataset_dict.json", "dataset_info.json", "dataset_infos.json", "state.json")
SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_WORDS = {word: split for split, words in SPLITS.items() for word in words}
_WORD = re.compile(rf"(?<![a-z])({'|'.join(_WORDS)})(?![a-z])")
_EXACT = re.compile(rf"({'|'.join(_WORDS)})\d*(?:[-_. ]+(?:of|\d[0-9a-f]*|[a-f][0-9a-f]{{7,}}))*")

Kind = Literal["tar", "table", "pairs", "classes"]


@dataclass(frozen=True)
class Layout:
    """What there is to read: files, or the names of pictures below the folder; and how many are in other splits."""

    kind: Kind
    files: tuple[Path, ...] = ()
    names: tuple[str, ...] = ()
    other_splits: Mapping[str, int] = field(default_factory=dict)


def find_layout(path: Path, split: str | None = None) -> Layout:
    """Return what a file or a folder holds.

    `split` takes one of several ("all": every one); by default it is the training split where there are several.
    Raises UserError for what is none of these, and for a split that is not there.
    """
    need(path, EXPECTED)
    if path.is_file():
        if path.suffix.lower() not in (".tar", *_PACKED) and not is_table(path):
            raise UserError(f"{path}: is a file of another kind; expected {EXPECTED}")
        return Layout("table" if is_table(path) else "tar", (path,))
    names = list(walk(path))
    if saved := _saved(path, names):
        return _of_split(path, "table", saved, split)
    if tables := _named_tables(names):
        return _of_split(path, "table", _grouped(tables), split)
    if archives := [name for name in names if name.lower().endswith(".tar")]:
        # archives of several splits are told apart only where that is asked for: their names may be any
        return _of_split(path, "tar", _grouped(archives), split or "all")
    if tables := [name for name in names if name.lower().endswith(PARQUET)]:
        return _of_split(path, "table", _grouped(tables), split)
    return _pictures(path, names, split)


def walk(folder: Path) -> Iterator[str]:
    """Yield the paths of a folder's files below it, in order; hidden ones and what macOS adds are skipped."""
    for parent, folders, names in os.walk(folder, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        base = Path(parent).relative_to(folder)
        yield from ((base / name).as_posix() for name in sorted(names) if not name.startswith("."))


def counts(name: str) -> bool:
    """Whether a file is a picture, of kinds that are not read too: those are refused by name."""
    return is_picture(name) or unread_reason(name) is not None


def split_of(name: str, siblings: frozenset[str] = frozenset()) -> str:
    """Return the split that a folder or file of a path is named for, "" for none.

    "test", "test-00000-of-00002" and "test-0123abcd" say it themselves; "data_test" only where `siblings`, the
    `name_patterns` of all paths, have "data_train" too, since "eye test" or "flight_test" may be any name.
    """
    for part in reversed(_stems(name)):
        if exact := _EXACT.fullmatch(part):
            return _WORDS[exact[1]]
        for found in _WORD.finditer(part):
            others = (f"{part[: found.start()]}{word}{part[found.end() :]}" for word in SPLITS["train"])
            if _WORDS[found[0]] == "train" or any(_pattern(other) in siblings for other in others):
                return _WORDS[found[0]]
    return ""


def name_patterns(names: Iterable[str]) -> frozenset[str]:
    """Return the folders' and files' names of paths with their numbers left out."""
    return frozenset(_pattern(part) for name in names for part in _stems(name))


def _stems(name: str) -> list[str]:
    path = Path(name.lower())
    return [*path.parent.parts, path.name.split(".")[0]]


def _pattern(part: str) -> str:
    return re.sub(r"\d+", "0", part)


def _grouped(names: Iterable[str]) -> dict[str, list[str]]:
    names = list(names)
    groups: dict[str, list[str]] = {}
    siblings = name_patterns(names)
    for name in names:
        groups.setdefault(split_of(name, siblings), []).append(name)
    return _with_unnamed(groups)


def _with_unnamed(groups: dict[str, list[str]]) -> dict[str, list[str]]:
    """Where some files are named for a split, those that are named for none are to be trained on."""
    if len(groups) > 1 and "" in groups:
        groups.setdefault("train", []).extend(groups.pop(""))
    return groups


def choose_split(path: Path, there: Sequence[str], split: str | None) -> tuple[list[str], list[str]]:
    """Return which of the splits are read and which are not; raises UserError when the one asked for is not there."""
    if split == "all" or (split is None and len(there) <= 1):
        return list(there), []
    wanted = "train" if split is None else split
    found = [name for name in there if name == wanted] or [
        name for name in there if _WORDS.get(name.lower(), name) == _WORDS.get(wanted.lower(), wanted)
    ]
    if not found:
        told = ", ".join(filter(None, there)) or "none that is named"
        raise UserError(f"{path}: no split {wanted!r}; there is {told}; expected one of these, or split=all")
    return found, [name for name in there if name not in found]


def _of_split(root: Path, kind: Kind, groups: Mapping[str, Sequence[str]], split: str | None) -> Layout:
    taken, others = choose_split(root, sorted(groups), split)
    files = (root / name for group in taken for name in groups[group])
    return Layout(kind, tuple(files), other_splits={name: len(groups[name]) for name in others})


def _saved(root: Path, names: Sequence[str]) -> dict[str, list[str]]:
    """The Arrow files of a folder that `datasets` saved, by split; empty for any other folder."""
    splits = _read(root / "dataset_dict.json").get("splits")
    if isinstance(splits, list) and all(isinstance(name, str) and safe_name(name) for name in splits):
        groups = {name: _arrow_files(root, f"{name}/", names) for name in splits}
        if missing := [name for name in splits if not groups[name]]:
            raise UserError(f"{root / missing[0]}: no Arrow file; expected the split that dataset_dict.json names")
        return groups
    files = _arrow_files(root, "", names)
    return _grouped(files) if files else {}


def saved_files(root: Path, split: str | None = None) -> list[Path]:
    """Return the Arrow files of a folder that `datasets` saved, those of one split; none for any other path."""
    groups = _saved(root, list(walk(root))) if root.is_dir() else {}
    return list(_of_split(root, "table", groups, split).files) if groups else []


def _arrow_files(root: Path, below: str, names: Sequence[str]) -> list[str]:
    """The files that state.json lists, in its order; else all that are no left-overs of `datasets`' own work."""
    listed = _read(root / below / "state.json").get("_data_files")
    if isinstance(listed, list):
        files = [str(each.get("filename")) if isinstance(each, Mapping) else "" for each in listed]
        for name in files:
            if not safe_name(name) or f"{below}{name}" not in names:
                raise UserError(f"{root / below / name}: not found; expected the file that state.json names")
        return [f"{below}{name}" for name in files]
    found = [name for name in names if name.startswith(below) and name.lower().endswith(ARROW)]
    return [name for name in found if not Path(name).name.startswith(("cache-", "tmp"))]


def _read(file: Path) -> Mapping[str, Any]:
    value = read_json(file) if file.is_file() else {}
    return value if isinstance(value, Mapping) else {}


def _named_tables(names: Iterable[str]) -> list[str]:
    """The tables of an imagefolder, one for each folder that has any."""
    found: dict[Path, str] = {}
    for name in names:
        path = Path(name)
        if path.stem.lower() in _TABLE_NAMES and path.suffix.lower() in _TABLE_ENDINGS:
            found.setdefault(path.parent, name)
    return list(found.values())


def _pictures(root: Path, names: Sequence[str], split: str | None) -> Layout:
    """Pictures with their captions beside them, in one table, or in folders named for what they show."""
    pictures = [name for name in names if counts(name)]
    texts = {_stem(name) for name in names if Path(name).suffix.lower()[1:] in TEXTS}
    paired = any(_stem(name) in texts for name in pictures)
    tables = [name for name in names if "/" not in name and is_table(Path(name)) and name not in OF_DATASETS]
    if not paired and tables:
        return _of_split(root, "table", _grouped(tables), split)
    groups: dict[str, list[str]] = {}
    for name in pictures:
        top = name.split("/")[0] if "/" in name else ""
        groups.setdefault(top if top.lower() in _WORDS else "", []).append(name)
    groups = _with_unnamed(groups)
    # pairs were always taken from everywhere
    taken, others = choose_split(root, sorted(groups), split or ("all" if paired else None)) if groups else ([], [])
    chosen = [name for group in taken for name in groups[group]]
    counted = {name: len(groups[name]) for name in others}
    folders = {Path(name).parent.name for name in chosen}
    depths = {name.count("/") for name in chosen}
    if not paired and len(folders) > 1 and len(depths) == 1:
        return Layout("classes", (), tuple(chosen), counted)
    return Layout("pairs", (), tuple(chosen), counted)


def _stem(name: str) -> str:
    return Path(name).with_suffix("").as_posix()
