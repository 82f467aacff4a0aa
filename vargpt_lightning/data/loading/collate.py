"""Examples put together into a batch, padded on the right.

Shape suffixes: B rows, T tokens, P seen pictures and Q drawn pictures of all rows, N vision patches, L visual tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vargpt_lightning.data.images import shared_memory
from vargpt_lightning.data.loading.examples import Example
from vargpt_lightning.data.shards.records import Record
from vargpt_lightning.data.text.chat import IGNORED


class Origin(NamedTuple):
    """What a row is of: the record's id and source."""

    id: str
    source: str


class Rows:
    """The records that a batch's rows are of, opaque to what moves a batch's tensors between devices.

    Their texts and pictures stay where they were read: they are in the batch as numbers.

    Attributes:
        requests: what the user said last in each record, which rewards of drawings are told.
    """

    def __init__(self, records: Sequence[Record | None]) -> None:
        self.records = [Origin(record.id, record.source) if record else None for record in records]
        self.requests = [_request(record) if record else "" for record in records]


def _request(record: Record) -> str:
    return next((turn.text for turn in reversed(record.turns) if turn.role == "user"), "")


def collate(examples: Sequence[Example], pad_id: int, *, multiple_of: int = 1) -> dict[str, Any]:
    """Return the batch that VARGPT's forward takes.

    `input_ids` (B, T), `attention_mask` (B, T) bool, `labels` (B, T); then, where any row has one, in order of
    appearance row by row: `pixel_values` (P, 3, S, S) or `vision_features` (P, N, C), `drawn_pixels` (Q, 3, H, W) or
    `drawn_indices` (Q, L). T is the longest row's length, rounded up to `multiple_of`. Beside them `rows`, what they
    are, `size` where the drawn pictures are of another than a model's first one, and the counts `cut`, `skipped`,
    `samples` (records), `tokens` and, with padding, `positions`.
    """
    longest = max(len(example.ids) for example in examples)
    shape = len(examples), -(-longest // multiple_of) * multiple_of
    ids_BT, labels_BT, mask_BT = (shared_memory.empty(shape, dtype) for dtype in (torch.long, torch.long, torch.bool))
    # arrays are written row by row in a fraction of the time that tensors take
    rows = zip(examples, ids_BT.numpy(), labels_BT.numpy(), mask_BT.numpy(), strict=True)
    for example, ids_T, labels_T, mask_T in rows:
        length = len(example.ids)
        ids_T[:length], labels_T[:length], mask_T[:length] = example.ids, example.labels, True
        ids_T[length:], labels_T[length:], mask_T[length:] = pad_id, IGNORED, False
    batch: dict[str, Any] = {"input_ids": ids_BT, "attention_mask": mask_BT, "labels": labels_BT}
    seen = [picture for example in examples for picture in example.seen]
    drawn = [picture for example in examples for picture in example.drawn]
    if seen:
        batch["pixel_values" if seen[0].ndim == 3 else "vision_features"] = shared_memory.stack(seen)
    if drawn:
        batch["drawn_pixels" if drawn[0].ndim == 3 else "drawn_indices"] = shared_memory.stack(drawn)
    if sizes := {size for example in examples if (size := example.size)}:
        (batch["size"],) = sizes
    batch["rows"] = Rows([example.record for example in examples])
    batch["cut"] = sum(example.cut for example in examples)
    batch["skipped"] = sum(example.skipped for example in examples)
    batch["samples"] = len(examples)
    batch["tokens"] = sum(len(example.ids) for example in examples)
    batch["positions"] = ids_BT.numel()
    return batch


class Collator:
    """`collate` with its settings, as a DataLoader wants it."""

    def __init__(self, pad_id: int, *, multiple_of: int = 1) -> None:
        self.pad_id, self.multiple_of = pad_id, multiple_of

    def __call__(self, examples: Sequence[Example]) -> dict[str, Any]:
        return collate(examples, self.pad_id, multiple_of=self.multiple_of)


def tensors(batch: dict[str, Any]) -> dict[str, Tensor]:
    """Return the batch's tensors alone."""
    return {name: value for name, value in batch.items() if isinstance(value, Tensor)}
