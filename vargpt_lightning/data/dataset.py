"""Records read from packed shards one by one, at any place, without reading what lies before."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch.utils.data import Dataset

from vargpt_lightning.data.packing import INDEX_NAME, OFFSETS_NAME
from vargpt_lightning.data.records import DRAWN, Record
from vargpt_lightning.errors import UserError


class DrawnCodes(Protocol):
    """What knows the visual tokens of a folder's drawn pictures."""

    def of_record(self, index: int, keys: Sequence[str]) -> Sequence[Any]:
        """Return the codes (variants, L) of the drawn pictures of a record, which have these keys."""


class ShardDataset(Dataset[Record]):
    """The records of one packed folder: `dataset[i]` reads record i by seeking to its members.

    Opening compares the shards with the index: a missing folder, index or shard, a shard of another size (truncated,
    or replaced), or offsets for another number of records raise UserError that names the file and the sizes.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.index = self._read_json(INDEX_NAME)
        self._members: list[list[Any]] = self._read_json(OFFSETS_NAME)
        self._handles: dict[int, Any] = {}
        self._codes: DrawnCodes | None = None
        try:
            self.name, self.split, self._shards = self.index["name"], self.index["split"], self.index["shards"]
            self._check()
        except (KeyError, TypeError) as error:
            raise UserError(f"{self.folder / INDEX_NAME}: {error!r}; expected an index written by packing") from error

    @property
    def draws(self) -> bool:
        """Whether any of the records holds a drawn picture: a way to group sources whose rows are alike in length."""
        return self.index["pictures"]["drawn"] > 0

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, index: int) -> Record:
        shard, (offset, length), *pictures = self._members[index]
        data = self._read(shard, offset, length)
        try:
            value = json.loads(data.decode("utf-8"))
        except ValueError as error:
            raise self._disagrees(shard, offset, error) from error
        record = Record.from_json(value)
        if self._codes is None:
            return record.with_pictures([self._read(shard, *place) for place in pictures])
        parts = record.pictures()
        codes = iter(self._codes.of_record(index, [part.key for part in parts if part.use == DRAWN]))
        uses = [part.use for part in parts]
        if len(uses) != len(pictures):
            return record.with_pictures([None] * len(pictures))  # which says what is wrong
        files = [None if use == DRAWN else self._read(shard, *place) for use, place in zip(uses, pictures, strict=True)]
        return record.with_pictures(files, [next(codes) if use == DRAWN else None for use in uses])

    def with_codes(self, codes: DrawnCodes) -> ShardDataset:
        """Return the same records with their drawn pictures as codes; the files of these are not read."""
        view = copy.copy(self)
        view._handles, view._codes = {}, codes
        return view

    def __iter__(self) -> Iterator[Record]:
        return (self[index] for index in range(len(self)))

    def __getstate__(self) -> dict[str, Any]:
        # open files do not travel to worker processes; each opens its own
        return self.__dict__ | {"_handles": {}}

    def verify(self) -> None:
        """Read every shard whole and compare its hash with the index's; raises UserError that names the first bad."""
        for shard in self._shards:
            path = self.folder / shard["file"]
            found = hashlib.sha256(path.read_bytes()).hexdigest()
            if found != shard["sha256"]:
                raise UserError(f"{path}: sha256 {found[:12]}..., the index says {shard['sha256'][:12]}...")

    def _check(self) -> None:
        for shard in self._shards:
            path = self.folder / shard["file"]
            if not path.is_file():
                raise UserError(f"{path}: the shard is missing; the index expects {shard['bytes']} bytes")
            size = path.stat().st_size
            if size != shard["bytes"]:
                raise UserError(f"{path}: {size} bytes, the index expects {shard['bytes']}: truncated or replaced")
        counted = sum(shard["count"] for shard in self._shards)
        if not len(self._members) == counted == self.index["count"]:
            raise UserError(
                f"{self.folder}: {OFFSETS_NAME} has {len(self._members)} records, {INDEX_NAME} {self.index['count']} "
                f"and its shards {counted}; expected the same number"
            )

    def _read(self, shard: int, offset: int, length: int) -> bytes:
        handle = self._handles.get(shard)
        if handle is None:
            handle = self._handles[shard] = (self.folder / self._shards[shard]["file"]).open("rb")
        handle.seek(offset)
        data = handle.read(length)
        if len(data) != length:
            raise self._disagrees(shard, offset, f"{len(data)} bytes there, {length} expected")
        return data

    def _disagrees(self, shard: int, offset: int, why: object) -> UserError:
        path = self.folder / self._shards[shard]["file"]
        return UserError(f"{path}: no record at byte {offset} ({why}); the index does not belong to this shard")

    def _read_json(self, name: str) -> Any:
        path = self.folder / name
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise UserError(f"{path}: not found; expected a folder of packed records") from error
        except ValueError as error:
            raise UserError(f"{path}: {path.stat().st_size} bytes that are no JSON ({error})") from error
