"""Parts put together into shards, one after the other, and what is known of them should the process be killed.

OUT/.packing/settings.json       what is being packed: another input or setting is another job
OUT/.packing/part-000012.*       parts that are done and not yet in a finished shard
OUT/.packing/shard-000003.json   a finished shard: its hash, its samples, and the row that comes next
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from filelock import FileLock, Timeout

from vargpt_lightning.data.packing.parts import PackedRow, PartTask, RejectedRow, read_part_rows, renamed, summed
from vargpt_lightning.data.shards.format import member_key
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import read_json, write_bytes

WORK_NAME = ".packing"
Duplicates = Literal["rename", "reject"]
_RECORD = 10240  # what tar archives are padded to
_BLOCK = 512


@dataclass
class Shard:
    """A shard: what the index says of it, and the place of the first row that is not in it.

    `samples` are [shard, [offset, length], ...] as in offsets.json; `keys` are hashes of the samples' names.
    """

    file: str
    bytes: int = 0
    sha256: str = ""
    samples: list[list[Any]] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    rejected: list[RejectedRow] = field(default_factory=list)
    sources: dict[str, dict[str, int]] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)
    renamed: int = 0
    next_part: int = 0
    next_row: int = 0

    @property
    def entry(self) -> dict[str, Any]:
        """What the index says of the shard."""
        return {"file": self.file, "count": len(self.samples), "bytes": self.bytes, "sha256": self.sha256}

    @classmethod
    def read(cls, path: Path) -> Shard:
        shard = cls(**read_json(path))
        shard.rejected = [RejectedRow(*row) for row in shard.rejected]
        return shard


@contextlib.contextmanager
def locked(folder: Path, doing: str = "packing into it", *, wait: bool = False) -> Iterator[None]:
    """Hold the folder for this process; the lock ends with it, however that ends.

    Raises UserError when another process has it, which is said to be `doing` something, unless this one is to `wait`.
    """
    lock = FileLock(folder / "lock", timeout=-1 if wait else 0)
    while not lock.is_locked:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with contextlib.suppress(FileNotFoundError):  # the process before has just cleared the folder away
                lock.acquire()
        except Timeout as error:
            raise UserError(f"{folder.parent}: another process is {doing}; wait for its end") from error
    try:
        yield
    finally:
        lock.release()


class ShardAssembler:
    """Fills shards with the rows of parts, given in order; goes on after the last shard that a killed run finished.

    Ids that were there before become `id-2`, `id-3`, ... with `duplicates="rename"`, or are rejected.
    """

    def __init__(self, out: Path, tasks: list[PartTask], shard_bytes: int, duplicates: Duplicates) -> None:
        self.out, self.work = out, out / WORK_NAME
        self._tasks, self._limit, self._duplicates = tasks, shard_bytes, duplicates
        self.shards: list[Shard] = []
        self._used: set[int] = set()
        self._last_number: dict[str, int] = {}
        self._file: IO[bytes] | None = None
        self._kept = self._rejected = self._forgotten = 0
        self._clean()
        self._load()
        self._open = self._fresh()

    @property
    def start(self) -> int:
        """The number of the part that is needed first."""
        return self.shards[-1].next_part if self.shards else 0

    @property
    def kept(self) -> int:
        """Rows in shards so far."""
        return self._kept

    @property
    def rejected(self) -> list[RejectedRow]:
        """All rows that were rejected so far, in order."""
        return [row for shard in [*self.shards, self._open] for row in shard.rejected]

    @property
    def rejected_count(self) -> int:
        """How many rows were rejected so far."""
        return self._rejected

    def add(self, task: PartTask) -> None:
        """Put a part's rows into shards; the parts must come in order, from `start` on."""
        first = self.shards[-1].next_row if self.shards and task.number == self.start else 0
        with open(task.data, "rb") as file:
            for place, row in enumerate(read_part_rows(task)):
                self._open.next_part, self._open.next_row = task.number, place + 1
                if isinstance(row, RejectedRow):
                    if place >= first:
                        self._reject(row)
                elif place < first:
                    file.seek(row.length, os.SEEK_CUR)
                else:
                    self._add(row, file.read(row.length))

    def finish(self) -> list[RejectedRow]:
        """Close the last shard; return the rows that were rejected after the last record."""
        if self._open.samples:
            self._close()
        return self._open.rejected

    def abandon(self) -> None:
        """Give up the open shard."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self._temporary.unlink(missing_ok=True)

    def _reject(self, row: RejectedRow) -> None:
        self._open.rejected.append(row)
        self._rejected += 1

    def _add(self, row: PackedRow, content: bytes) -> None:
        name = self._unique(row.id)
        if name != row.id:
            if self._duplicates == "reject":
                self._reject(RejectedRow(row.id, row.source, "duplicate id: an earlier record has it"))
                return
            content, row = renamed(content, row, name)
            self._open.renamed += 1
        self._take(row, content)
        if self._open.bytes >= self._limit:
            self._close()

    def _take(self, row: PackedRow, content: bytes) -> None:
        shard = self._open
        if self._file is None:
            self._file = open(self._temporary, "wb")  # noqa: SIM115 - stays open from record to record
            self._hash = hashlib.sha256()
        key = _hashed(member_key(row.id))
        self._used.add(key)
        shard.keys.append(key)
        shard.samples.append([len(self.shards), *([shard.bytes + at, size] for at, size in row.places)])
        shard.kinds[row.kind] = shard.kinds.get(row.kind, 0) + 1
        add_counts(shard.sources, summed([row]))
        self._write(content)
        self._kept += 1

    def _write(self, content: bytes) -> None:
        assert self._file is not None
        self._file.write(content)
        self._hash.update(content)
        self._open.bytes += len(content)

    def _unique(self, name: str) -> str:
        """The id, or with a number behind it: samples are told apart by the names of their members."""
        if _hashed(member_key(name)) not in self._used:
            return name
        number = self._last_number.get(name, 1) + 1
        while _hashed(member_key(f"{name}-{number}")) in self._used:
            number += 1
        self._last_number[name] = number
        return f"{name}-{number}"

    def _close(self) -> None:
        """Finish the open shard: from here on a killed run resumes behind it."""
        shard, file = self._open, self._file
        assert file is not None
        self._write(bytes(2 * _BLOCK + -(shard.bytes + 2 * _BLOCK) % _RECORD))
        file.flush()
        os.fsync(file.fileno())
        file.close()
        os.replace(self._temporary, self.out / shard.file)
        self._file, shard.sha256 = None, self._hash.hexdigest()
        write_bytes(self._state(len(self.shards)), json.dumps(vars(shard), separators=(",", ":")).encode())
        self.shards.append(shard)
        for task in self._tasks[self._forgotten : shard.next_part]:
            task.remove()
        self._forgotten = max(self._forgotten, shard.next_part)
        self._open = self._fresh()

    def _fresh(self) -> Shard:
        return Shard(f"shard-{len(self.shards):06d}.tar")

    @property
    def _temporary(self) -> Path:
        return self.work / f"{self._open.file}.tmp"

    def _state(self, number: int) -> Path:
        return self.work / f"shard-{number:06d}.json"

    def _clean(self) -> None:
        """Remove what a killed run was in the middle of writing."""
        for path in [*self.work.glob("*.tmp"), *self.work.glob(".*.tmp")]:
            path.unlink(missing_ok=True)

    def _load(self) -> None:
        """Take over the shards that are finished and still there; those behind a gap are made again."""
        while self._state(len(self.shards)).is_file():
            shard = Shard.read(self._state(len(self.shards)))
            path = self.out / shard.file
            if not path.is_file() or path.stat().st_size != shard.bytes:
                break
            self.shards.append(shard)
            self._used.update(shard.keys)
            self._kept += len(shard.samples)
            self._rejected += len(shard.rejected)
        for path in self.work.glob("shard-*.json"):
            if path.name >= self._state(len(self.shards)).name:
                path.unlink()


def add_counts(into: dict[str, dict[str, int]], more: dict[str, dict[str, int]]) -> None:
    """Add counts by source to others."""
    for source, counts in more.items():
        before = into.setdefault(source, {})
        for name, count in counts.items():
            before[name] = before.get(name, 0) + count


def _hashed(key: str) -> int:
    """64 bits that stand for a name: a set of millions of names fits into memory so."""
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
