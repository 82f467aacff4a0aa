"""Where each record of a packed folder lies, in flat arrays: millions of records, and no Python object for any."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vargpt_lightning.data.shards.format import OFFSETS_NAME, cache_root
from vargpt_lightning.utils.errors import UserError

_VERSION = 1
_HEAD = 3  # version, records, members
_PIECE = 8 * 2**20  # bytes of JSON that are parsed at a time
_BETWEEN = b"]],["  # the end of a record and the beginning of the next
KEPT_FROM = 50_000  # records; fewer are parsed in less than a second


@dataclass(frozen=True)
class Offsets:
    """Arrays over n records with m members (the JSON and the pictures) in all.

    Attributes:
        shards: (n,) the number of each record's shard.
        firsts: (n + 1,) the number of each record's first member; m at the end.
        places: (m, 2) byte offset and length of each member in its shard; a record's JSON comes first.
    """

    shards: np.ndarray
    firsts: np.ndarray
    places: np.ndarray

    def __len__(self) -> int:
        return len(self.shards)

    def at(self, index: int) -> tuple[int, list[list[int]]]:
        """Return a record's shard, and [offset, length] of its JSON and of each picture."""
        places = self.places[self.firsts[index] : self.firsts[index + 1]]
        return int(self.shards[index]), places.tolist()

    @classmethod
    def read(cls, folder: Path) -> Offsets:
        """Read the offsets of a packed folder.

        Those of large folders are kept below the cache folder, by the hash of what was read, and from then on mapped
        into memory that all processes share.

        Raises:
            UserError: they are missing, no JSON, or not those of records.
        """
        path = folder / OFFSETS_NAME
        try:
            kept = cache_root() / "offsets" / f"{_digest(path)}.npy"
        except FileNotFoundError as error:
            raise UserError(f"{path}: not found; expected a folder of packed records") from error
        with contextlib.suppress(OSError, ValueError, EOFError):
            return cls._unpacked(np.load(kept, mmap_mode="r", allow_pickle=False))
        try:
            found = cls.collect(_samples(path))
        except (ValueError, TypeError, IndexError) as error:
            raise UserError(f"{path}: {path.stat().st_size} bytes that are no offsets ({error})") from error
        if len(found) >= KEPT_FROM:
            with contextlib.suppress(OSError, ValueError):  # without space there it is parsed each time
                found._keep(kept)
                return cls._unpacked(np.load(kept, mmap_mode="r", allow_pickle=False))
        return found

    @classmethod
    def collect(cls, pieces: Iterator[list[Any]]) -> Offsets:
        """Put together pieces of `[[shard, [offset, length], ...], ...]`."""
        shards, counts, places = [], [], []
        for samples in pieces:
            if not isinstance(samples, list):
                raise ValueError("no list")
            shards.append(np.array([sample[0] for sample in samples], dtype=np.int64))
            counts.append(np.array([len(sample) - 1 for sample in samples], dtype=np.int64))
            flat = [place for sample in samples for place in sample[1:]]
            places.append(np.array(flat, dtype=np.int64).reshape(-1, 2))
        members = np.concatenate([np.zeros(1, np.int64), *counts])
        if members[1:].min(initial=1) < 1:
            raise ValueError("a record without its JSON")
        none = np.zeros((0, 2), np.int64)
        return cls(np.concatenate([none[:, 0], *shards]), members.cumsum(), np.concatenate([none, *places]))

    @classmethod
    def _unpacked(cls, values: np.ndarray) -> Offsets:
        version, records, members = (int(value) for value in values[:_HEAD])
        shards, firsts, places = np.split(values[_HEAD:], [records, 2 * records + 1])
        if version != _VERSION or len(places) != 2 * members:
            raise ValueError("another version, or cut short")
        return cls(shards, firsts, places.reshape(-1, 2))

    def _keep(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        head = np.array([_VERSION, len(self.shards), len(self.places)], dtype=np.int64)
        try:
            with open(temporary, "wb") as file:
                np.save(file, np.concatenate([head, self.shards, self.firsts, self.places.reshape(-1)]))
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _samples(path: Path) -> Iterator[list[Any]]:
    """Parse the file a few megabytes at a time: as Python objects all of it would take gigabytes."""
    left = b""
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            left += piece
            end = left.rfind(_BETWEEN)
            # the first piece opens the list, the last one closes it; in between both are put there
            if end >= 0:
                yield json.loads(left[: end + 2] + b"]")
                left = b"[" + left[end + 3 :]
    yield json.loads(left)
