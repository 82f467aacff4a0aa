"""Tensors that are spread over processes, and those that are not, by the same calls."""

from __future__ import annotations

from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor gathered from all processes, which all have to ask for it; one that is no part as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """Return this process's part of a tensor, sharing its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def like(part: Tensor, place: Tensor) -> Tensor:
    """Return a process's part as a tensor spread as another is."""
    if not isinstance(place, DTensor):
        return part
    return DTensor.from_local(
        part, place.device_mesh, place.placements, run_check=False, shape=place.shape, stride=place.stride()
    )


def spread(tensor: Tensor, place: Tensor) -> Tensor:
    """Return a tensor that every process has whole, spread as another is; nothing is sent."""
    if not isinstance(place, DTensor):
        return tensor
    mesh = place.device_mesh
    everywhere = DTensor.from_local(tensor, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return everywhere.redistribute(mesh, place.placements)
