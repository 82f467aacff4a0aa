"""Shards compared with the evaluation records, each by itself: a found shard is a file, and a killed command resumes.

What is found in a shard is bounded by the evaluation records: of each kind of match a record has a count and the first
training records.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from vargpt_lightning.data.images.picture_files import PictureError
from vargpt_lightning.data.packing.pool import in_order
from vargpt_lightning.data.shards.dataset import ShardDataset
from vargpt_lightning.data.shards.records import Record
from vargpt_lightning.evaluation.overlap.hashes import squares, text_keys
from vargpt_lightning.evaluation.overlap.known import Known
from vargpt_lightning.utils.files import read_object, write_json

KINDS = ("same picture and question", "same picture", "near picture and question", "near picture", "question")
SHOWN = 3  # training records of each match that are named
Matches = dict[str, dict[str, list[Any]]]
"""Kind -> what was found (number of a record; for "question" the hash) -> [count, [first training records]]."""


class Task(NamedTuple):
    """A shard of a folder: its records from `first` on, and where what is found is written."""

    folder: Path
    first: int
    records: int
    out: Path


class Scanned(NamedTuple):
    """What was found in a shard."""

    folder: Path
    records: int
    pictures: int
    broken: int
    matches: Matches


def scan(tasks: list[Task], known: Path, near: int, processes: int) -> Iterator[Scanned]:
    """Compare shards with the evaluation records, and yield what is found in each, in order.

    Args:
        tasks: those whose file is there already are not read again.
        known: folder with the evaluation records' hashes.
        near: bits by which near duplicates may differ.
        processes: shards that are read at the same time.
    """
    for task, path in zip(
        tasks, in_order(partial(_scan, known=known, near=near), tasks, processes, "comparing"), strict=True
    ):
        found = read_object(path)
        records, pictures, broken = (int(found[name]) for name in ("records", "pictures", "broken"))
        yield Scanned(task.folder, records, pictures, broken, found["matches"])


@cache
def _known(folder: Path) -> Known:
    return Known.load(folder)


@cache
def _opened(folder: Path) -> ShardDataset:
    return ShardDataset(folder)


def _scan(task: Task, *, known: Path, near: int) -> Path:
    """Compare one shard; return the file that says what was found."""
    if task.out.is_file():
        return task.out
    asked, records = _known(known), _opened(task.folder)
    places = range(task.first, task.first + task.records)
    search = _Search(asked, near)
    for place in places:
        search.look_at(records[place])
    found = {"records": len(places), "pictures": search.pictures, "broken": search.broken, "matches": search.matches}
    write_json(task.out, found)
    return task.out


class _Search:
    """The matches of some training records."""

    def __init__(self, known: Known, near: int) -> None:
        self.known, self.near = known, near
        self.matches: Matches = {}
        self.pictures = self.broken = 0

    def look_at(self, record: Record) -> None:
        keys: set[int] = set()
        for turn in record.turns:
            if turn.role == "user":
                keys |= text_keys(turn.text)
        keys &= self.known.questions
        matched: dict[int, tuple[str, int]] = {}
        for part in record.pictures():
            if part.data is None:
                continue
            self.pictures += 1
            for picture, bits in self._look_alikes(part.data, part.name):
                kind = "same picture" if bits < 0 else "near picture"
                for number in self.known.asked_of.get(picture, ()):
                    if number not in matched or bits < matched[number][1]:
                        matched[number] = (kind, bits)
        for number, (kind, bits) in matched.items():
            both = int(self.known.texts_R[number]) in keys
            self._note(f"{kind} and question" if both else kind, str(number), record.id, max(bits, 0))
        for key in keys:
            self._note("question", str(key), record.id, 0)

    def _look_alikes(self, data: bytes, name: str) -> list[tuple[int, int]]:
        """(picture, bits apart) of the evaluation's pictures; -1 bits for the very file."""
        same = self.known.same_file(data)
        if same is not None:
            return [(same, -1)]
        try:
            return list(self.known.look_alikes(squares(data, name), self.near))
        except PictureError:
            self.broken += 1
            return []

    def _note(self, kind: str, what: str, record: str, bits: int) -> None:
        entry = self.matches.setdefault(kind, {}).setdefault(what, [0, []])
        entry[0] += 1
        if len(entry[1]) < SHOWN:
            entry[1].append([record, bits])


def tasks_of(folders: list[Path], out: Path, key: str) -> list[Task]:
    """The shards of folders; what is found in each is a file named by the shard's hash and the settings' key."""
    tasks = []
    for folder in folders:
        records = ShardDataset(folder)
        first = 0
        for shard in records.index["shards"]:
            name = f"{str(shard['sha256'])[:24]}-{key}.json"
            tasks.append(Task(folder, first, int(shard["count"]), out / name))
            first += int(shard["count"])
    return tasks


def merge(into: dict[Any, list[Any]], matches: dict[Any, list[Any]], folder: str) -> None:
    """Add a shard's matches of one kind, with the folder's name before the training records' ids."""
    for what, (count, records) in matches.items():
        entry = into.setdefault(what, [0, []])
        entry[0] += count
        entry[1] += [[f"{folder}/{record}", bits] for record, bits in records][: max(0, SHOWN - len(entry[1]))]


def signature(folder: Path) -> str:
    """The files below a folder (or a file) with their sizes and times: other data have another one."""
    import hashlib

    files = [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file())
    rows = [(os.path.relpath(path, folder), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]
