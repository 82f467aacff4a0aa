"""Tensors that are spread over processes, and those that are not, by the same calls.

fsdp2 spreads parameters as DTensors. FSDP1 flattens a module's parameters into one and cuts that: of each parameter a
process has a run of its elements, often none, and a `FlatPart` on the parameter says which.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate

_FLAT_PART = "_flat_part"
_WRAPPER = "_fsdp_wrapped_module."


@dataclass(frozen=True)
class FlatPart:
    """Where the elements that this process has of a flattened parameter begin, and the whole parameter's shape."""

    shape: torch.Size
    start: int
    count: int
    group: Any

    def gather(self, part: Tensor) -> Tensor:
        """Return the whole of what all processes have parts of."""
        found = part.new_zeros(self.shape.numel())
        found[self.start : self.start + self.count] = part.reshape(-1)
        dist.all_reduce(found, group=self.group)
        return found.view(self.shape)

    def cut(self, tensor: Tensor) -> Tensor:
        """Return this process's part of what every process has whole."""
        return tensor.reshape(-1)[self.start : self.start + self.count]


def set_flat_part(parameter: nn.Parameter, part: FlatPart) -> None:
    """Note on a parameter which of its elements this process has."""
    setattr(parameter, _FLAT_PART, part)


def flat_part(parameter: Tensor) -> FlatPart | None:
    """Return what a parameter that FSDP1 has flattened has noted; None for all others."""
    part: FlatPart | None = getattr(parameter, _FLAT_PART, None)
    return part


def named_parameters(module: nn.Module, every: bool = False) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield a module's parameters by the names that they have where nothing is wrapped; `every` name of each."""
    for name, parameter in module.named_parameters(remove_duplicate=not every):
        yield plain_name(name), parameter


def plain_name(name: str) -> str:
    """Return the name that a parameter or buffer has where nothing is wrapped."""
    return name.replace(_WRAPPER, "")


def whole_shape(parameter: Tensor) -> torch.Size:
    """Return the shape that a parameter has where it is whole."""
    part = flat_part(parameter)
    return part.shape if part else parameter.shape


def gathered(tensor: Tensor, place: Tensor) -> Tensor:
    """Return a tensor gathered that is spread as a parameter is; all processes have to ask for it."""
    part = flat_part(place)
    return part.gather(tensor) if part else whole(tensor)


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
    if part := flat_part(place):
        return part.cut(tensor).reshape(place.shape)
    if not isinstance(place, DTensor):
        return tensor
    mesh = place.device_mesh
    everywhere = DTensor.from_local(tensor, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return everywhere.redistribute(mesh, place.placements)
