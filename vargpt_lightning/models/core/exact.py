"""What is computed in the types of its tensors, and buffers that stay in 32 bits whatever those of the weights."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn


def full_precision(x: Tensor) -> AbstractContextManager[Any]:
    """Switch autocast off on the tensor's device, where the device has it."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


class KeepsFloat32(nn.Module):
    """A module whose named buffers follow a change of device, and none of type.

    In 16 bits a scale, a count or a frequency is another one, and bringing the weights back to 32 does not mend it.
    """

    in_float32: tuple[str, ...] = ()

    def _apply(self, fn: Any, recurse: bool = True) -> KeepsFloat32:
        before = {name: self._buffers[name] for name in self.in_float32}
        super()._apply(fn, recurse)
        for name, buffer in before.items():
            now = self._buffers[name]
            if buffer is not None and now is not None and now.dtype != buffer.dtype:
                self._buffers[name] = buffer.to(now.device)
        return self


def exact_buffers(model: nn.Module) -> set[str]:
    """Return the names of all buffers of a model that stay in 32 bits."""
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, KeepsFloat32)]
    return {f"{name}.{buffer}" for name, module in found for buffer in module.in_float32}
