"""Records read from packed shards one by one, at any place, without reading what lies before."""

from __future__ import annotations

import copy
import json
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from vargpt_lightning.data.shards.format import INDEX_NAME, OFFSETS_NAME
from vargpt_lightning.data.shards.offsets import Offsets
from vargpt_lightning.data.shards.records import DRAWN, Record
from vargpt_lightning.utils.errors import UserError, near_folder

_OPEN_FILES = 64
_GAP = 4096  # bytes between a record's members that are rather read than skipped


class DrawnCodes(Protocol):
    """What knows the visual tokens of a folder's drawn pictures."""

    def of_record(self, index: int, names: Sequence[str]) -> Sequence[Any]:
        """Return the codes (variants, L) of the drawn pictures of a record, which have these names."""


class ShardDataset:
    """The records of one packed folder: `dataset[i]` reads record i by seeking to its members.

    Opening compares the shards with the index: a missing folder, index or shard, a shard of another size (truncated,
    or replaced), or offsets for another number of records raise UserError that names the file and the sizes.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()
        self.index = self._read_json(INDEX_NAME)
        self._offsets = Offsets.read(self.folder)
        self._handles: OrderedDict[int, IO[bytes]] = OrderedDict()
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

    @property
    def shard_counts(self) -> list[int]:
        """How many records each shard has, in order: what a shuffle by blocks goes by."""
        return [shard["count"] for shard in self._shards]

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, index: int) -> Record:
        if self._codes is not None:
            return self._coded(range(len(self))[index], self._codes)
        shard, places = self._offsets.at(range(len(self))[index])
        data, *pictures = self._read(shard, places)
        try:
            value = json.loads(data.decode("utf-8"))
        except ValueError as error:
            raise self._disagrees(shard, places[0][0], error) from error
        return Record.from_json(value, pictures, packed=True)

    def will_need(self, indices: Iterable[int]) -> None:
        """Have the system read these records ahead, all at once: a network's storage is slow to answer, not to send."""
        for index in indices if hasattr(os, "posix_fadvise") else ():
            shard, places = self._offsets.at(index)
            first, last = _span(places if self._codes is None else places[:1])
            os.posix_fadvise(self._open(shard), first, last - first, os.POSIX_FADV_WILLNEED)

    def outline(self, index: int) -> Record:
        """Return record i without its pictures' files, which are not read."""
        shard, places = self._offsets.at(range(len(self))[index])
        (data,) = self._read(shard, places[:1])
        return Record.from_json(json.loads(data), packed=True)

    def with_codes(self, codes: DrawnCodes) -> ShardDataset:
        """Return the same records with their drawn pictures as codes; the files of these are not read."""
        view = copy.copy(self)
        view._handles, view._codes = OrderedDict(), codes
        return view

    def _coded(self, index: int, codes: DrawnCodes) -> Record:
        """Record i with the files of its seen pictures and the codes of its drawn ones."""
        (shard, places), record = self._offsets.at(index), self.outline(index)
        drawn = [part.use == DRAWN for part in record.pictures()]
        if len(drawn) != len(places) - 1:
            return record.with_pictures([None] * (len(places) - 1))  # which says what is wrong
        made = iter(codes.of_record(index, [part.name for part in record.pictures(DRAWN)]))
        seen = [place for place, of_drawn in zip(places[1:], drawn, strict=True) if not of_drawn]
        files = iter(self._read(shard, seen) if seen else [])
        return record.with_pictures(
            [None if of_drawn else next(files) for of_drawn in drawn],
            [next(made) if of_drawn else None for of_drawn in drawn],
        )

    def __iter__(self) -> Iterator[Record]:
        return (self[index] for index in range(len(self)))

    def __getstate__(self) -> dict[str, Any]:
        # neither open files nor arrays travel to processes that are not forked; each opens its own
        return self.__dict__ | {"_handles": OrderedDict(), "_offsets": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._offsets = Offsets.read(self.folder)

    def _check(self) -> None:
        for shard in self._shards:
            path = self.folder / shard["file"]
            if not path.is_file():
                raise UserError(f"{path}: the shard is missing; the index expects {shard['bytes']} bytes")
            size = path.stat().st_size
            if size != shard["bytes"]:
                raise UserError(f"{path}: {size} bytes, the index expects {shard['bytes']}: truncated or replaced")
        counts = self.shard_counts
        if not len(self) == sum(counts) == self.index["count"]:
            raise UserError(
                f"{self.folder}: {OFFSETS_NAME} has {len(self)} records, {INDEX_NAME} {self.index['count']} "
                f"and its shards {sum(counts)}; expected the same number"
            )
        if not np.array_equal(self._offsets.shards, np.repeat(np.arange(len(counts)), counts)):
            raise UserError(f"{self.folder}: {OFFSETS_NAME} has other numbers of records by shard than {INDEX_NAME}")

    def _read(self, shard: int, places: list[list[int]]) -> list[bytes]:
        """A record's members: they lie side by side and are read as one."""
        first, last = _span(places)
        if last - first > sum(length for _, length in places) + len(places) * _GAP:
            return [data for place in places for data in self._read_span(shard, [place], *_span([place]))]
        return self._read_span(shard, places, first, last)

    def _read_span(self, shard: int, places: list[list[int]], first: int, last: int) -> list[bytes]:
        data = os.pread(self._open(shard), last - first, first)
        if len(data) != last - first:
            raise self._disagrees(shard, first, f"{len(data)} bytes there, {last - first} expected")
        return [data[offset - first : offset - first + length] for offset, length in places]

    def _open(self, shard: int) -> int:
        """The file of a shard, opened at its first use; the one that was not used for longest is closed."""
        handle = self._handles.get(shard)
        if handle is None:
            path = self.folder / self._shards[shard]["file"]
            try:
                handle = self._handles[shard] = open(path, "rb", buffering=0)  # noqa: SIM115 - stays open
            except OSError as error:
                raise UserError(
                    f"{path}: cannot be opened ({error.strerror}); it was there when the data were opened"
                ) from error
            if len(self._handles) > _OPEN_FILES:
                self._handles.popitem(last=False)[1].close()
        self._handles.move_to_end(shard)
        return handle.fileno()

    def _disagrees(self, shard: int, offset: int, why: object) -> UserError:
        path = self.folder / self._shards[shard]["file"]
        return UserError(f"{path}: no record at byte {offset} ({why}); the index does not belong to this shard")

    def _read_json(self, name: str) -> Any:
        path = self.folder / name
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            near = near_folder(self.folder)
            raise UserError(f"{path}: not found; expected a folder of packed records{near}") from error
        except NotADirectoryError as error:
            raise UserError(f"{self.folder}: is a file; expected a folder of packed records") from error
        except OSError as error:
            raise UserError(f"{path}: {error.strerror or error}; expected a folder of packed records") from error
        except ValueError as error:
            raise UserError(f"{path}: {path.stat().st_size} bytes that are no JSON ({error})") from error


def _span(places: list[list[int]]) -> tuple[int, int]:
    """The first byte of a record's members, and the one after the last."""
    return min(offset for offset, _ in places), max(offset + length for offset, length in places)
