"""Pairs put together into batches: the rows of an answer that was chosen and of the one that was rejected in turn."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from vargpt_lightning.data.loading.collate import Rows, collate
from vargpt_lightning.data.loading.examples import Example, ExampleMaker
from vargpt_lightning.data.mixing.mixture import Place, SkippedRecord
from vargpt_lightning.data.shards.records import Record
from vargpt_lightning.data.text.chat import IGNORED
from vargpt_lightning.utils.errors import UserError


@dataclass
class Pair:
    """Both examples of a pair; of each the last answer alone is trained. `skipped` is as an example's."""

    chosen: Example
    rejected: Example
    skipped: int = 0


@dataclass(frozen=True)
class PairMaker:
    """Makes pairs for training, of examples as `examples` makes them: the pictures of both are varied alike.

    Raises SkippedRecord for a record without a rejected answer, and as an `ExampleMaker` does; a pair that is longer
    than the context is left out, not cut.
    """

    examples: ExampleMaker

    def __call__(self, record: Record, place: Place | None = None) -> Pair:
        other = record.other
        if other is None:
            raise SkippedRecord(f"record {record.id!r}: no rejected answer")
        return Pair(self._answer(record.chosen, place), self._answer(other, place))

    def _answer(self, record: Record, place: Place | None) -> Example:
        example = self.examples(record, place)
        if example.cut:
            raise SkippedRecord(f"record {record.id!r}: longer than {self.examples.context} tokens")
        try:
            asked = self.examples.template.prompt(record.turns[:-1]).ids if len(record.turns) > 1 else array("q")
        except UserError as error:
            raise SkippedRecord(f"record {record.id!r}: {error}") from error
        if example.ids[: len(asked)] != asked:
            return example  # a template that writes prompts in another way; what both answers share cancels out
        labels = array("q", [IGNORED]) * len(asked) + example.labels[len(asked) :]
        return replace(example, labels=labels)


def collate_pairs(pairs: Sequence[Pair], pad_id: int) -> dict[str, Any]:
    """Return the batch that `collate` gives of rows 0, 2, … that were chosen and 1, 3, … that were rejected.

    `rows` are one a pair, and `samples` counts pairs.
    """
    batch = collate([side for pair in pairs for side in (pair.chosen, pair.rejected)], pad_id)
    batch["rows"] = Rows([pair.chosen.record for pair in pairs])
    batch["skipped"] = sum(pair.skipped for pair in pairs)
    batch["samples"] = len(pairs)
    return batch


class PairCollator:
    """`collate_pairs` with its settings, as a DataLoader wants it."""

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id

    def __call__(self, pairs: Sequence[Pair]) -> dict[str, Any]:
        return collate_pairs(pairs, self.pad_id)
