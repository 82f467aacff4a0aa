"""What packed folders are made of: records by source and task, how long they are, how many pictures, how large.

Counts are the index's, and exact. Tasks, lengths and sizes are of records evenly spread over the folder, at most
`limit` of them; up to there they are exact too. Imports no torch.
"""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from vargpt_lightning.data.images.picture_files import picture_size
from vargpt_lightning.data.shards.format import INDEX_NAME, OFFSETS_NAME
from vargpt_lightning.data.shards.records import DRAWN, SEEN, Record
from vargpt_lightning.utils.errors import UserError, near_folder
from vargpt_lightning.utils.files import read_json

TASKS = ("text", "understanding", "generation", "mixed")
Measure = Callable[[Record], int]
_SIZES = 400  # pictures of a source that are opened for their size


@dataclass
class SourceStats:
    """One source of one folder; lists hold a value for each record that was looked at."""

    folder: str
    name: str
    count: int = 0
    rejected: int = 0
    tasks: Counter[str] = field(default_factory=Counter)
    lengths: dict[str, list[int]] = field(default_factory=dict)
    turns: list[int] = field(default_factory=list)
    seen: list[int] = field(default_factory=list)
    drawn: list[int] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)

    @property
    def all_lengths(self) -> list[int]:
        """The lengths of all tasks, sorted."""
        return sorted(value for values in self.lengths.values() for value in values)

    def quantile(self, share: float) -> int:
        """The length that this share of the records does not exceed."""
        lengths = self.all_lengths
        return lengths[min(len(lengths) - 1, int(share * len(lengths)))] if lengths else 0

    def mean(self, values: Sequence[int]) -> float:
        """The mean of a list, 0 for none."""
        return statistics.fmean(values) if values else 0.0

    def add(self, record: Record, length: int) -> None:
        """Look at a record."""
        seen, drawn = len(record.pictures(SEEN)), len(record.pictures(DRAWN))
        task = task_of(seen, drawn)
        self.tasks[task] += 1
        self.lengths.setdefault(task, []).append(length)
        self.turns.append(len(record.turns))
        self.seen.append(seen)
        self.drawn.append(drawn)


@dataclass
class FolderStats:
    """A folder and its sources; `looked_at` of its `count` records were read."""

    path: Path
    name: str
    split: str
    count: int
    bytes: int
    shards: int
    looked_at: int
    sources: list[SourceStats]


def task_of(seen: int, drawn: int) -> str:
    """What a record with so many pictures teaches."""
    if seen and drawn:
        return "mixed"
    return "understanding" if seen else "generation" if drawn else "text"


def words(record: Record) -> int:
    """The number of words of a record."""
    return sum(len(text.split()) for text in record.texts())


def describe_folder(folder: Path, *, limit: int = 50_000, measure: Measure = words) -> FolderStats:
    """Return what a packed folder is made of; `measure` gives a record's length.

    Raises UserError when it is no such folder, or empty, or its shards are not those of the index.
    """
    index = _read(folder, INDEX_NAME)
    offsets = _read(folder, OFFSETS_NAME)
    _compare(folder, index, len(offsets))
    name = str(index["name"])
    found: dict[str, SourceStats] = {}
    for source, counts in index.get("sources", {}).items():
        found[source] = SourceStats(name, source, counts["count"], counts.get("rejected", 0))
    exact = bool(found)
    chosen = evenly(len(offsets), limit)
    with _Shards(folder, index) as shards:
        for number, text, *pictures in (offsets[place] for place in chosen):
            record = shards.record(number, text)
            stats = found.setdefault(record.source, SourceStats(name, record.source))
            stats.count += not exact
            stats.add(record, measure(record))
            if len(stats.sizes) < _SIZES:
                stats.sizes += filter(None, (picture_size(shards.read(number, place)) for place in pictures))
    return FolderStats(
        folder, name, str(index["split"]), index["count"], index["bytes"], len(index["shards"]), len(chosen),
        sorted(found.values(), key=lambda stats: -stats.count),
    )  # fmt: skip


def evenly(count: int, limit: int) -> list[int]:
    """At most `limit` places, evenly spread over `count`."""
    taken = min(count, limit)
    return [place * count // taken for place in range(taken)]


def _read(folder: Path, name: str) -> Any:
    if folder.is_file():
        raise UserError(f"{folder}: is a file; expected a folder of packed records")
    if not (folder / name).is_file():
        raise UserError(f"{folder / name}: not found; expected a folder of packed records{near_folder(folder)}")
    return read_json(folder / name)


def _compare(folder: Path, index: dict[str, Any], offsets: int) -> None:
    """Refuse a folder whose shards or offsets are not those of its index."""
    more = f"`vargpt data check {folder}` says more"
    for shard in index["shards"]:
        path = folder / shard["file"]
        if not path.is_file():
            raise UserError(f"{path}: the shard is missing; {more}")
        if (size := path.stat().st_size) != shard["bytes"]:
            raise UserError(f"{path}: {size} bytes, the index expects {shard['bytes']}; {more}")
    if offsets != index["count"]:
        raise UserError(f"{folder}: {OFFSETS_NAME} has {offsets} records, {INDEX_NAME} {index['count']}; {more}")
    if not offsets:
        raise UserError(f"{folder}: no records; expected at least one")


class _Shards:
    """Reads stretches of shards, one of which stays open."""

    def __init__(self, folder: Path, index: dict[str, Any]) -> None:
        self.folder, self._shards = folder, index["shards"]
        self._number = -1
        self._file: IO[bytes] | None = None

    def __enter__(self) -> _Shards:
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()

    def read(self, number: int, place: Sequence[int]) -> bytes:
        if number != self._number or self._file is None:
            self.__exit__()
            path = self.folder / self._shards[number]["file"]
            self._number, self._file = number, open(path, "rb")  # noqa: SIM115 - stays open from record to record
        self._file.seek(place[0])
        return self._file.read(place[1])

    def record(self, number: int, place: Sequence[int]) -> Record:
        data = self.read(number, place)
        try:
            return Record.from_json(json.loads(data.decode()))
        except ValueError as error:
            raise UserError(
                f"{self.folder / self._shards[number]['file']}: no record at byte {place[0]}; "
                f"`vargpt data check {self.folder}` says more"
            ) from error
