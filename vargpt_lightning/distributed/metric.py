"""A torchmetrics metric whose states keep their precision, and can be gathered where a process has seen nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class ExactMetric(Metric):
    """The base of this package's metrics: what torchmetrics leaves to chance about states is settled here.

    States follow a module to another device but not to another type of numbers (`trainer.precision=bf16-true` would
    count in 16 bits), are in no checkpoint, and a process without a batch may join the others in `compute`.
    """

    is_differentiable = False
    full_state_update = False

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._empty_rows: dict[str, Tensor] = {}

    def add_rows(self, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> None:
        """Add a state that grows by rows: append tensors (N, *shape) to the list, and read it with `rows`."""
        self.add_state(name, [], dist_reduce_fx="cat")
        self._empty_rows[name] = torch.zeros(0, *shape, dtype=dtype)

    def rows(self, name: str) -> Tensor:
        """Return all rows of a state, (N, *shape): one process's after the other's where they have been gathered."""
        found = getattr(self, name)
        if isinstance(found, Tensor):  # what `sync` makes of a list
            return found
        # a single tensor is not copied: it may be a file's
        return found[0] if len(found) == 1 else torch.cat([self._empty_rows[name].to(self.device), *found])

    def sync(self, *arguments: Any, **settings: Any) -> None:
        """Gather the states of all processes; a list without rows has to have the shape of the others'."""
        for name, empty in self._empty_rows.items():
            if isinstance(rows := getattr(self, name), list) and not rows:
                rows.append(empty.to(self.device))
        super().sync(*arguments, **settings)

    def touched(self) -> None:
        """Tell torchmetrics that the states have been changed by something else than `update`."""
        self._computed = None
        self._update_count += 1

    def scalar(self, value: float) -> Tensor:
        """Return a number as `compute` has to: a scalar on the metric's device, with all of its digits where it can."""
        dtype = torch.float32 if self.device.type == "mps" else torch.float64
        return torch.tensor(value, dtype=dtype, device=self.device)

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> ExactMetric:
        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(fn(tensor).device)

        super()._apply(moved, exclude_state)
        return self
