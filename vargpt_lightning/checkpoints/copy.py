"""Stored weights into a model that is there: tensor by tensor, and where it is sharded each process its own part."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from vargpt_lightning.checkpoints.dtensor import is_dtensor
from vargpt_lightning.checkpoints.lazy_tensors import Source, finite
from vargpt_lightning.checkpoints.published import layouts
from vargpt_lightning.utils.errors import UserError


def place(
    model: nn.Module,
    state: Mapping[str, Source],
    *,
    parts: Iterable[str] | None = None,
    source: str = "checkpoint",
    keep: Iterable[str] = (),
) -> None:
    """Copy stored weights into a model, all of them and nothing else; arguments and errors are those of `load`.

    One tensor is read at a time, and cast to the type that the model has. Of a tensor that is sharded over processes
    (DTensor, as `fully_shard` makes it), each process reads the part that it holds, and nothing is sent between them.
    """
    given = layouts.fitting(model, state, parts=parts, source=source, keep=keep)
    targets = model.state_dict()
    for key, stored in given.items():
        load_tensor(targets[key], stored, key)


@torch.no_grad()
def load_tensor(target: Tensor, stored: Source, key: str = "tensor") -> None:
    """Copy a stored tensor, or this process's part of it, into one of the same (global) shape.

    Raises:
        UserError: the target is on the meta device and has no memory to be filled; a number is none.
    """
    local = target.to_local() if is_dtensor(target) else target
    if local.is_meta:
        raise UserError(f"key {key}: is on the meta device; expected memory, as to_empty(device=...) gives")
    if local.numel():
        local.copy_(finite(stored.part(*local_slices(target)), key, getattr(stored, "file", None)))


def local_slices(target: Tensor) -> tuple[slice, ...]:
    """Return which part of a tensor this process holds, a slice for each dimension; none for a whole one."""
    if not is_dtensor(target):
        return ()
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    shape, offset = compute_local_shape_and_global_offset(target.shape, target.device_mesh, target.placements)
    return tuple(slice(start, start + size) for start, size in zip(offset, shape, strict=True))
