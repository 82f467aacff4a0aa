"""The evaluation records as arrays of hashes: what the shards are compared with.

    known.npz     hashes of pictures and questions, and which record has which
    known.jsonl   set, id and question of each record

Shape suffixes: R records, U different pictures, M entries of records' pictures, T records with a question.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vargpt_lightning.data.images.picture_files import PictureError
from vargpt_lightning.evaluation.overlap.hashes import (
    BANDS,
    NEAR,
    SQUARES,
    alike,
    bits_apart,
    bytes_hash,
    looks_hash,
    squares,
    text_hash,
    words,
)
from vargpt_lightning.utils.files import read_jsonl, write_bytes, write_jsonl

ARRAYS, ROWS = "known.npz", "known.jsonl"


class Asked(NamedTuple):
    """An evaluation record: the set it belongs to, its id, its question, its pictures' files."""

    set: str
    id: str
    question: str
    pictures: tuple[bytes, ...]


@dataclass
class Known:
    """Hashes of all evaluation records.

    Args:
        files_U: hash of each different picture's bytes, ascending.
        looks_U22: what each looks like, as it is and mirrored (training mirrors pictures).
        squares_UDDC: its mean colours, uint8.
        entries_M2: (picture, record).
        texts_R: hash of each record's question; 0 for none.
    """

    files_U: np.ndarray
    looks_U22: np.ndarray
    squares_UDDC: np.ndarray
    entries_M2: np.ndarray
    texts_R: np.ndarray

    @cached_property
    def asked_of(self) -> dict[int, list[int]]:
        """Records by picture."""
        found: dict[int, list[int]] = {}
        for picture, record in self.entries_M2.tolist():
            found.setdefault(picture, []).append(record)
        return found

    @cached_property
    def questions(self) -> frozenset[int]:
        """The hashes of all questions."""
        return frozenset(self.texts_R.tolist()) - {0}

    @cached_property
    def _bands(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each 16 bits of a hash: its values in ascending order, and which entries have them."""
        bands_EB = self.looks_U22.reshape(-1, 2).view(np.uint16)
        orders = [np.argsort(bands_EB[:, band], kind="stable") for band in range(BANDS)]
        return [(bands_EB[order, band], order) for band, order in enumerate(orders)]

    def same_file(self, data: bytes) -> int | None:
        """The evaluation picture that has these very bytes."""
        wanted = bytes_hash(data)
        place = int(np.searchsorted(self.files_U, np.uint64(wanted)))
        return place if place < len(self.files_U) and int(self.files_U[place]) == wanted else None

    def look_alikes(self, squares_DDC: np.ndarray, near: int = NEAR) -> Iterator[tuple[int, int]]:
        """Yield (evaluation picture, bits apart) for those that look like a picture, or like it mirrored."""
        own_2 = looks_hash(squares_DDC)
        candidates: set[int] = set()
        for value, (values, order) in zip(own_2.view(np.uint16), self._bands, strict=True):
            first, last = np.searchsorted(values, value, "left"), np.searchsorted(values, value, "right")
            candidates.update(order[first:last].tolist())
        if not candidates:
            return
        entries = np.array(sorted(candidates))
        apart = bits_apart(self.looks_U22.reshape(-1, 2)[entries], own_2)
        found: dict[int, int] = {}
        for entry, bits in zip(entries[apart <= near].tolist(), apart[apart <= near].tolist(), strict=True):
            picture, mirrored = divmod(entry, 2)
            there = self.squares_UDDC[picture][:, :: -1 if mirrored else 1].astype(np.float32)
            if alike(there, squares_DDC):
                found[picture] = min(bits, found.get(picture, bits))
        yield from sorted(found.items())

    def save(self, folder: Path) -> None:
        """Write the arrays."""
        content = io.BytesIO()
        np.savez(content, **{name: getattr(self, name) for name in self.__dataclass_fields__})
        write_bytes(folder / ARRAYS, content.getvalue())

    @classmethod
    def load(cls, folder: Path) -> Known:
        """Read the arrays."""
        with np.load(folder / ARRAYS, allow_pickle=False) as arrays:
            return cls(**{name: arrays[name] for name in cls.__dataclass_fields__})


def remember(asked: Iterable[Asked], folder: Path) -> tuple[Known, int]:
    """Hash evaluation records, one at a time, and write the two files; return also how many pictures are none."""
    rows: list[dict[str, str]] = []
    texts: list[int] = []
    entries: list[tuple[int, int]] = []
    files: dict[int, int] = {}
    looks: list[np.ndarray] = []
    colours: list[np.ndarray] = []
    broken = 0
    for number, one in enumerate(asked):
        normal = words(one.question)
        rows.append({"set": one.set, "id": one.id, "question": one.question})
        texts.append(text_hash(normal) if normal else 0)
        for data in one.pictures:
            key = bytes_hash(data)
            if key not in files:
                try:
                    own = squares(data, f"{one.set} {one.id}")
                except PictureError:
                    broken += 1
                    continue
                files[key] = len(looks)
                looks.append(np.stack([looks_hash(own), looks_hash(own[:, ::-1])]))
                colours.append(own.round().astype(np.uint8))
            entries.append((files[key], number))
    order = sorted(files, key=files.__getitem__)
    ascending = np.argsort(np.array(order, dtype=np.uint64), kind="stable")
    places = np.empty(len(order), dtype=np.int64)
    places[ascending] = np.arange(len(order))
    count = len(order)
    known = Known(
        files_U=np.array(order, dtype=np.uint64)[ascending],
        looks_U22=np.array(looks, dtype=np.uint64).reshape(count, 2, 2)[ascending],
        squares_UDDC=np.array(colours, dtype=np.uint8).reshape(count, SQUARES, SQUARES, 3)[ascending],
        entries_M2=np.array([(places[picture], record) for picture, record in entries], dtype=np.int64).reshape(-1, 2),
        texts_R=np.array(texts, dtype=np.uint64),
    )
    write_jsonl(folder / ROWS, rows)
    known.save(folder)
    return known, broken


def read_rows(folder: Path) -> list[dict[str, str]]:
    """The records' sets, ids and questions, in order."""
    return read_jsonl(folder / ROWS)
