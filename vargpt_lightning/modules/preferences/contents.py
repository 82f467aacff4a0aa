"""What log-probabilities depend on, by content: the weights of a model, and the rows of a batch.

Legend: B rows, T tokens, Q drawn pictures, P seen pictures, L visual tokens.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vargpt_lightning.distributed.group import Processes
from vargpt_lightning.distributed.tensors import local
from vargpt_lightning.models.vargpt import VARGPTModel
from vargpt_lightning.modules.preferences.reference import KEY_BYTES
from vargpt_lightning.modules.step_counts import DRAWN_KEYS, SEEN_KEYS


def model_digest(model: VARGPTModel, processes: Processes, more: Mapping[str, Any]) -> str:
    """Return 16 digits that stand for a model's weights and for `more` settings, the same in all processes.

    Of weights that are spread, each process looks at its own part, so that nothing is gathered.
    """
    digest = hashlib.sha256(json.dumps(dict(more), sort_keys=True, default=str).encode())
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        digest.update(f"{name}:{tuple(value.shape)}:{value.dtype}".encode())
        digest.update(_bytes(local(value.detach())))
    every = "".join(processes.gather(digest.hexdigest()))
    return hashlib.sha256(every.encode()).hexdigest()[:16]


def row_keys(batch: Mapping[str, Any], model: VARGPTModel, more: Tensor | None = None) -> list[bytes]:
    """Return for each row of a batch a key of all that its log-probability depends on, padding left out.

    Args:
        more: (B, n) numbers that belong to it too.
    """
    ids_BT, valid_BT = batch["input_ids"], batch["attention_mask"].bool()
    targets_BT = model.text_labels(batch)
    pictures = [
        *_by_row(batch, SEEN_KEYS, ids_BT == model.tokens.image),
        *_by_row(batch, DRAWN_KEYS, ids_BT == model.tokens.image_gen),
    ]
    keys = []
    for row in range(len(ids_BT)):
        own = [each[row] for each in (ids_BT, targets_BT) if each is not None]
        parts = [each[valid_BT[row]] for each in own]
        parts += [each[row] for each in pictures if row in each]
        parts += [more[row]] if more is not None else []
        digest = hashlib.sha256()
        for part in parts:
            digest.update(f"{tuple(part.shape)}:{part.dtype};".encode())
            digest.update(_bytes(part))
        keys.append(digest.digest()[:KEY_BYTES])
    return keys


def _by_row(batch: Mapping[str, Any], names: tuple[str, ...], where_BT: Tensor) -> list[dict[int, Tensor]]:
    """A batch's pictures of one use by the rows that have some."""
    pictures = next((batch[name] for name in names if batch.get(name) is not None), None)
    if pictures is None or not len(pictures):
        return []
    each = int(where_BT.sum()) // len(pictures)
    counts = (where_BT.sum(1) // max(each, 1)).tolist()
    return [{row: part for row, part in enumerate(pictures.split(counts)) if len(part)}]


def _bytes(tensor: Tensor) -> memoryview:
    if tensor.is_meta:  # where a step is planned nothing has a content
        return memoryview(b"")
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
