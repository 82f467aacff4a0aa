"""Where a model runs: the device that was named, or a GPU when there is one. Torch is imported when it is needed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from vargpt_lightning.errors import UserError, nearest

if TYPE_CHECKING:
    import torch

NAMES = ("cpu", "cuda", "mps", "xpu")
EXPECTED = "expected cpu, cuda, cuda:N, mps or xpu"


def check_name(name: str) -> str:
    """Return a device's name when it is one; says nothing about whether the machine has it.

    Raises:
        UserError: it is none, with the nearest one.
    """
    parts = re.fullmatch(r"([a-z]+)(?::([0-9]{1,4}))?", name)
    if parts is None or parts[1] not in NAMES:
        close = nearest(name.partition(":")[0], NAMES)
        raise UserError(f"{name!r} is no device; {EXPECTED}" + (f"; did you mean '{close}'?" if close else ""))
    return name


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
    found = torch.device(check_name(device))
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
