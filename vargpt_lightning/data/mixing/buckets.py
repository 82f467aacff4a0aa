"""Corpora by the size that their drawn pictures are to have, so that every batch holds pictures of one size.

A record goes to the size whose aspect ratio is nearest to that of its first drawn picture; one that draws nothing goes
to the first size. The records of a corpus that go to one size, its bucket, are a source of the mixture by themselves,
so that what orders and resumes a mixture serves several sizes too.

Shape suffixes: N records.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from vargpt_lightning.data.images.picture_files import picture_size
from vargpt_lightning.data.images.shapes import Shape, nearest_size
from vargpt_lightning.data.mixing.kept import kept
from vargpt_lightning.data.mixing.spec import MixBy
from vargpt_lightning.data.shards.dataset import ShardDataset
from vargpt_lightning.data.shards.records import DRAWN, Record
from vargpt_lightning.utils.counted import counted

Positions = NDArray[np.int64]
MARK = "@"


def record_sizes(source: ShardDataset, shapes: Sequence[Shape], folder: Path) -> Positions:
    """Return for each record (N,) which of some shapes its drawn pictures are to have, from `folder` or measured.

    Only the pictures' own sizes are kept, so that a file serves all models.
    Raises UserError when the file cannot be written.
    """
    if len(shapes) < 2 or not source.draws:
        return np.zeros(len(source), np.int64)
    told = json.dumps([[shard["sha256"], shard["count"]] for shard in source.index["shards"]])
    file = folder / f"{hashlib.sha256(told.encode()).hexdigest()[:24]}.npy"
    words = f"{source.folder}: measuring the pictures of {counted(len(source), 'record')}, once"
    own_N2 = kept(file, (len(source), 2), words, lambda: _measured(source))
    found, which_N = np.unique(own_N2, axis=0, return_inverse=True)
    sizes = [nearest_size(height, width, shapes) if height and width else 0 for height, width in found.tolist()]
    return np.array(sizes, np.int64)[which_N.reshape(-1)]


def size_of(record: Record, shapes: Sequence[Shape]) -> int:
    """Return which of some shapes a record's drawn pictures are to have."""
    height, width = _own_shape(record)
    return nearest_size(height, width, shapes) if height and width else 0


def _measured(source: ShardDataset) -> NDArray[np.uint32]:
    own_N2 = np.zeros((len(source), 2), np.uint32)
    for place, record in enumerate(source):
        own_N2[place] = _own_shape(record)
    return own_N2


def _own_shape(record: Record) -> Shape:
    """Height and width of a record's first drawn picture; 0 where there is none, or it is broken."""
    drawn = record.pictures(DRAWN)
    found = picture_size(drawn[0].data) if drawn and drawn[0].data else None
    return (0, 0) if found is None else (found[1], found[0])


@dataclass(frozen=True)
class Bucket:
    """The records of a corpus whose drawn pictures are to have one size."""

    corpus: str
    size: int
    positions: Positions

    @property
    def name(self) -> str:
        """What the mixture calls it: as the corpus, but for the first size."""
        return f"{self.corpus}{MARK}{self.size}" if self.size else self.corpus

    def share(self, value: float, by: MixBy, of: int) -> float:
        """Its part of what a corpus of so many records has of a mixture by weights or passes."""
        return value if by == "passes" else value * len(self.positions) / of

    def shards(self, counts: Sequence[int]) -> list[int]:
        """How many of its records lie in each shard."""
        ends = np.searchsorted(self.positions, np.cumsum([0, *counts]))
        return np.diff(ends).tolist()


def buckets_of(corpus: str, sizes_N: Positions, among: Positions | None = None) -> list[Bucket]:
    """Return the buckets of a corpus, of all its records or of some, those that are not empty."""
    positions = np.arange(len(sizes_N)) if among is None else among
    found = [Bucket(corpus, int(size), positions[sizes_N[positions] == size]) for size in np.unique(sizes_N[positions])]
    return found or [Bucket(corpus, 0, positions)]


def mixture_values(values: Mapping[str, float], by: MixBy, buckets: Mapping[str, Sequence[Bucket]]) -> dict[str, float]:
    """Return what each bucket has of a mixture: of a corpus's number its part, passes as they are."""
    found: dict[str, float] = {}
    for corpus, value in values.items():
        own = buckets.get(corpus)
        if own is None:  # named, and not there: who mixes says so
            found[corpus] = value
        elif by == "counts":
            found |= _whole(int(value), own) if value == int(value) else {own[0].name: value}
        else:
            of = sum(len(bucket.positions) for bucket in own)
            found |= {bucket.name: bucket.share(value, by, max(of, 1)) for bucket in own}
    return found


def _whole(count: int, buckets: Sequence[Bucket]) -> dict[str, float]:
    """A count spread over buckets in proportion to their records, in whole numbers, by largest remainders."""
    of = max(sum(len(bucket.positions) for bucket in buckets), 1)
    exact = [count * len(bucket.positions) / of for bucket in buckets]
    found = [int(each) for each in exact]
    by_rest = sorted(range(len(exact)), key=lambda place: found[place] - exact[place])
    for place in by_rest[: count - sum(found)]:
        found[place] += 1
    return {bucket.name: float(each) for bucket, each in zip(buckets, found, strict=True)}


def corpus_of(name: str) -> str:
    """Return the corpus that a bucket's name speaks of."""
    return name.partition(MARK)[0]


class Sized(Dataset[Record]):
    """The records of a bucket, their drawn pictures at its size."""

    def __init__(self, source: Any, bucket: Bucket) -> None:
        self.source, self.positions, self.size = source, bucket.positions, bucket.size

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, position: int) -> Record:
        record: Record = self.source[int(self.positions[position])]
        return record.with_size(self.size) if self.size else record

    def will_need(self, positions: Sequence[int]) -> None:
        """Pass on to a storage that can what will be read."""
        if prefetch := getattr(self.source, "will_need", None):
            prefetch([int(self.positions[position]) for position in positions])
