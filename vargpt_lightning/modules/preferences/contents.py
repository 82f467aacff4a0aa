"""What log-probabilities depend on, by content: the weights of a model, and the rows of a batch.

Legend: B rows, T tokens, Q drawn pictures, P seen pictures, L visual tokens.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vargpt_lightning.distributed.group import Processes
from vargpt_lightning.distributed.tensors import local
from vargpt_lightning.models.vargpt import VARGPTModel
from vargpt_lightning.modules.preferences.reference import KEY_BYTES
from vargpt_lightning.modules.step_counts import DRAWN_KEYS, SEEN_KEYS

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def model_digest(model: VARGPTModel, processes: Processes, more: Mapping[str, Any]) -> str:
    """Return 16 digits that stand for a model's weights and for `more` settings, the same in all processes.

    Of weights that are spread, each process looks at its own part, so that nothing is gathered.
    """
    digest = hashlib.sha256(json.dumps(dict(more), sort_keys=True, default=str).encode())
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        digest.update(f"{name}:{tuple(value.shape)}:{value.dtype}".encode())
        digest.update(Content.of(local(value.detach())).bytes())
    every = "".join(processes.gather(digest.hexdigest()))
    return hashlib.sha256(every.encode()).hexdigest()[:16]


def row_keys(batch: Mapping[str, Any], model: VARGPTModel, more: Tensor | None = None) -> list[bytes]:
    """Return for each row of a batch a key of all that its log-probability depends on, padding left out.

    Args:
        more: (B, n) numbers that belong to it too.
    """
    ids_BT = batch["input_ids"]
    targets_BT = model.text_labels(batch)
    texts = [Content.of(each) for each in (ids_BT, targets_BT) if each is not None]
    valid_BT = batch["attention_mask"].bool().cpu().numpy()
    pictures = [
        *_by_row(batch, SEEN_KEYS, ids_BT == model.tokens.image),
        *_by_row(batch, DRAWN_KEYS, ids_BT == model.tokens.image_gen),
    ]
    others = [] if more is None else [Content.of(more)]
    keys = []
    for row in range(len(ids_BT)):
        parts = [each.at(row).at(valid_BT[row]) for each in texts]
        parts += [each[row] for each in pictures if row in each]
        parts += [each.at(row) for each in others]
        digest = hashlib.sha256()
        for part in parts:
            digest.update(f"{part.values.shape}:{part.dtype};".encode())
            digest.update(part.bytes())
        keys.append(digest.digest()[:KEY_BYTES])
    return keys


@dataclass(frozen=True)
class Content:
    """What a tensor holds, on the host: rows are then looked at one by one without an operation of the device each.

    Attributes:
        values: whole numbers of the same bits; where a step is planned, tensors on the meta device hold none.
        dtype: the tensor's own.
    """

    values: NDArray[Any]
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: Tensor) -> Content:
        """Bring a tensor to the host at once."""
        if tensor.is_meta:
            return cls(np.empty((*tensor.shape[:1], 0), dtype=np.uint8), tensor.dtype)
        bits = _BITS[tensor.element_size()]
        return cls(tensor.detach().cpu().contiguous().view(bits).numpy(), tensor.dtype)

    def at(self, where: Any) -> Content:
        """Return a part, by whatever numpy takes."""
        return Content(self.values[where], self.dtype)

    def bytes(self) -> memoryview:
        """Return the bytes of all values in their order."""
        return np.ascontiguousarray(self.values).reshape(-1).view(np.uint8).data


def _by_row(batch: Mapping[str, Any], names: tuple[str, ...], where_BT: Tensor) -> list[dict[int, Content]]:
    """A batch's pictures of one use by the rows that have some."""
    pictures = next((batch[name] for name in names if batch.get(name) is not None), None)
    if pictures is None or not len(pictures):
        return []
    each = int(where_BT.sum()) // len(pictures)
    ends = np.cumsum(where_BT.sum(1).cpu().numpy() // max(each, 1))
    every = Content.of(pictures)
    spans = zip((0, *ends[:-1]), ends, strict=True)
    return [{row: every.at(slice(begin, end)) for row, (begin, end) in enumerate(spans) if end > begin}]
