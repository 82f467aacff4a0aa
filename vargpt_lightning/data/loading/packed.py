"""Examples put together into rows of several, each example a segment that no other sees.

Shape suffixes: B rows, T tokens.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import torch

from vargpt_lightning.data.loading.collate import Rows, collate
from vargpt_lightning.data.loading.examples import Example
from vargpt_lightning.data.mixing.batching import split_rows
from vargpt_lightning.data.text.chat import IGNORED


def collate_packed(
    examples: Sequence[Example], pad_id: int, row_tokens: int, *, multiple_of: int = 1
) -> dict[str, Any]:
    """Return the batch that `collate` gives, with as many examples in a row as `row_tokens` hold, in their order.

    Beside its keys there is `segment_ids` (B, T): 1, 2, ... for the examples of a row, 0 for padding. Pictures stay in
    order of appearance. An example longer than `row_tokens` has a row of its own.
    """
    parts = split_rows([len(example.ids) for example in examples], row_tokens)
    batch = collate([_joined(examples[part]) for part in parts], pad_id, multiple_of=multiple_of)
    segments_BT = torch.zeros_like(batch["input_ids"])
    for row, part in enumerate(parts):
        lengths = torch.tensor([len(example.ids) for example in examples[part]])
        numbers = torch.arange(1, len(lengths) + 1).repeat_interleave(lengths)
        segments_BT[row, : len(numbers)] = numbers
    batch["segment_ids"] = segments_BT
    batch["rows"] = Rows([example.record for example in examples])
    counts = {"samples": len(examples)}
    counts |= {name: sum(getattr(example, name) for example in examples) for name in ("cut", "skipped")}
    return batch | counts


class PackedCollator:
    """`collate_packed` with its settings, as a DataLoader wants it."""

    def __init__(self, pad_id: int, row_tokens: int, *, multiple_of: int = 1) -> None:
        self.pad_id, self.row_tokens, self.multiple_of = pad_id, row_tokens, multiple_of

    def __call__(self, examples: Sequence[Example]) -> dict[str, Any]:
        return collate_packed(examples, self.pad_id, self.row_tokens, multiple_of=self.multiple_of)


def _joined(examples: Sequence[Example]) -> Example:
    """A row's examples as one; the first token of each follows another example and is trained by nobody."""
    result = Example(array("q"), array("q"))
    for example in examples:
        result.ids.extend(example.ids)
        result.labels.append(IGNORED)
        result.labels.extend(example.labels[1:])
        result.seen += example.seen
        result.drawn += example.drawn
        result.size = result.size or example.size
    return result
