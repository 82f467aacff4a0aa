"""Where a model runs: the device that was named, or a GPU when there is one. Torch is imported when it is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.names import check_device

if TYPE_CHECKING:
    import torch


def choose(device: str | torch.device | None = None) -> torch.device:
    """Return the device that is meant, once it is known that this machine has it.

    Args:
        device: such as cpu, cuda or cuda:1; None takes a GPU when there is one.

    Raises:
        UserError: there is no such device, or this machine has not so many.
    """
    import torch

    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not isinstance(device, str):
        device = str(device)
    if device == "meta":  # a model without memory, as plans build it
        return torch.device("meta")
    found = torch.device(check_device(device))
    there = _count(torch, found.type)
    if (found.index or 0) >= there:
        has = f"this machine has {there} of that kind, numbered from 0" if there else "this machine has none"
        raise UserError(f"device {device!r}: {has}; expected cpu or, where there is a GPU, its name such as cuda:0")
    return found


def _count(torch: Any, kind: str) -> int:
    """How many devices of a kind there are."""
    if kind == "cpu":
        return 1
    if kind == "mps":
        return int(torch.backends.mps.is_available())
    module = getattr(torch, kind)
    return int(module.device_count()) if module.is_available() else 0
