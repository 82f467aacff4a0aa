"""Records made into examples: token ids, labels, and the pictures as pixels or as what a cache holds of them.

Shape suffixes: T tokens, P seen pictures, Q drawn pictures, N vision patches, L visual tokens, C channels, H, W.
"""

from __future__ import annotations

import hashlib
import random
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vargpt_lightning.data.images.pictures import LevelReader, PictureError, PictureReader
from vargpt_lightning.data.loading.feature_cache import PictureCache
from vargpt_lightning.data.mixing.mixture import Place, SkippedRecord
from vargpt_lightning.data.shards.records import PicturePart, Record
from vargpt_lightning.data.text.chat import ChatTemplate, Rendered
from vargpt_lightning.utils.errors import UserError

Picture = Tensor | np.ndarray
PictureSource = PictureReader | LevelReader | PictureCache


@dataclass
class Example:
    """One record, ready to be put into a batch; `seen` and `drawn` hold one tensor, or array of bytes, a picture.

    `ids` and `labels` are arrays of type "q". `cut` says that it was longer than the context, `skipped` how many bad
    records it stands in for, `size` which of a model's sizes the drawn pictures are of.
    """

    ids: array[int]
    labels: array[int]
    seen: list[Picture] = field(default_factory=list)
    drawn: list[Picture] = field(default_factory=list)
    record: Record | None = None
    cut: bool = False
    skipped: int = 0
    size: int = 0


@dataclass(frozen=True)
class ExampleMaker:
    """Makes examples for training: `maker(record, place)`, and prompts for answering: `maker.prompt(record)`.

    `seen` and `drawn` say where pictures come from: a PictureReader decodes them, a cache looks them up by key (seen:
    features (N, C)); `sizes` has readers for drawn pictures of a model's other sizes. A drawn picture that comes with
    its codes gives these (L,). Which variant of a picture is taken
    follows from seed, record, epoch and the picture's place in the record.
    Raises SkippedRecord for a picture that cannot be decoded and for a record with no trained token and no drawing.
    """

    template: ChatTemplate
    seen: PictureSource | None = None
    drawn: PictureSource | None = None
    context: int | None = None
    seed: int = 0
    vary: bool = True
    sizes: tuple[PictureSource, ...] = ()

    def __call__(self, record: Record, place: Place | None = None) -> Example:
        try:
            rendered = self.template.render(record, self.context)
        except UserError as error:  # a chat template may have no way to write this one
            raise SkippedRecord(f"record {record.id!r}: {error}") from error
        if not rendered.drawn and not rendered.trains:
            raise SkippedRecord(f"record {record.id!r}: nothing to train in {self.context} tokens")
        try:
            return self._example(record, rendered, place)
        except PictureError as error:
            raise SkippedRecord(str(error)) from error

    def prompt(self, record: Record, reserve: int = 0) -> Example:
        """Return the record's turns up to its last answer as a prompt, with its pictures unvaried.

        Raises UserError when it does not fit the context together with `reserve`, and PictureError.
        """
        turns = record.turns[:-1] if record.turns[-1].role == "assistant" else record.turns
        return self._example(record, self.template.prompt(turns, self.context, reserve), None)

    def _example(self, record: Record, rendered: Rendered, place: Place | None) -> Example:
        choose = self._chooser(record, place)
        seen = [_read(part, self.seen, choose) for part in rendered.seen]
        drawn = [
            _read(part, self._reader(part.size), self._chooser(record, place, f":drawn:{number}"))
            for number, part in enumerate(rendered.drawn)
        ]
        size = rendered.drawn[0].size if drawn else 0
        return Example(rendered.ids, rendered.labels, seen, drawn, record, rendered.cut, size=size)

    def _reader(self, size: int) -> PictureSource | None:
        return self.sizes[size - 1] if size else self.drawn

    def _chooser(self, record: Record, place: Place | None, which: str = "") -> Callable[[int], int]:
        if place is None or not self.vary:
            return lambda count: 0
        return _Chooser(f"{self.seed}:{record.id}:{place.epoch}{which}")


class _Chooser:
    """`randrange` of the randomness that a text stands for, which is not made before there is something to choose."""

    def __init__(self, text: str) -> None:
        self._text, self._passed = text, 0
        self._random: random.Random | None = None

    def __call__(self, count: int) -> int:
        if self._random is None:
            if count == 1:
                self._passed += 1
                return 0
            digest = hashlib.sha256(self._text.encode()).digest()
            self._random = random.Random(int.from_bytes(digest[:8], "big"))
            for _ in range(self._passed):
                self._random.randrange(1)  # it draws too
        return self._random.randrange(count)


def _read(part: PicturePart, source: Any, choose: Callable[[int], int]) -> Picture:
    if part.codes is not None:
        if not len(part.codes):
            raise PictureError(f"picture {part.name!r}: could not be decoded when its visual tokens were made")
        return torch.from_numpy(part.codes[choose(len(part.codes))].astype(np.int64))
    if source is None:
        raise ValueError(f"{part.use} pictures: no reader and no cache given; expected one for such records")
    # a cache knows pictures by their content; a reader varies them by what their corpus calls them
    key = part.key if isinstance(source, PictureCache) else part.name
    picture: Picture = source.read(part.data, key, choose(source.variants_of(key)))
    return picture
