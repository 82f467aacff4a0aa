"""What a stage counts between two rows of its table, as torchmetrics: means by name, and the codes in use.

Legend: S names or scales, N names of a batch, V codes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from vargpt_lightning.distributed.metric import ExactMetric


class NamedMeans(ExactMetric):
    """Weighted means of numbers by name since the last reset, over all processes.

    One vector of sums and one of weights hold all names, so that a batch counts with one call, and that processes
    exchange the same states whatever their batches had.

    Args:
        names: all there may be, in the order of the result; a batch need not have each of them.
    """

    sums: Tensor
    weights: Tensor

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        self._places: dict[tuple[torch.device, tuple[str, ...]], Tensor] = {}
        self.add_state("sums", torch.zeros(len(self.names)), dist_reduce_fx="sum")
        self.add_state("weights", torch.zeros(len(self.names), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, values: Mapping[str, Tensor | float], weights: Mapping[str, int]) -> None:
        """Count a batch: its means by name, and how many tokens or samples each is the mean of.

        Raises:
            ValueError: a name that the metric was not made with.
        """
        device = self.sums.device
        places_N = self._places_of(tuple(values), device)
        given = [torch.as_tensor(value, dtype=torch.float32, device=device) for value in values.values()]
        if not given:
            return
        # `non_blocking`: without a wait for what the device has still to do
        weights_N = torch.tensor([weights[name] for name in values], dtype=torch.int64).to(device, non_blocking=True)
        self.sums.index_add_(0, places_N, torch.stack(given) * weights_N)
        self.weights.index_add_(0, places_N, weights_N)

    def compute(self) -> dict[str, Tensor]:
        """Return the means, float64, of what has been counted."""
        sums_S, weights_S = self.sums.cpu().double(), self.weights.cpu()
        found = zip(self.names, sums_S / weights_S, weights_S, strict=True)
        return {name: mean for name, mean, weight in found if weight}

    def _places_of(self, names: tuple[str, ...], device: torch.device) -> Tensor:
        """Where the names stand in the states; a stage's batches have few sets of names, so they are kept."""
        if (device, names) not in self._places:
            if unknown := [name for name in names if name not in self.names]:
                raise ValueError(f"no mean is kept of {', '.join(unknown)}; expected some of {', '.join(self.names)}")
            found = torch.tensor([self.names.index(name) for name in names], dtype=torch.int64)
            self._places[device, names] = found.to(device)
        return self._places[device, names]


class CodebookUsage(ExactMetric):
    """The percentage of an image tokenizer's codes that each scale uses, (S,).

    Args:
        scales: how many there are.
    """

    higher_is_better = True
    used: Tensor
    codes: Tensor

    def __init__(self, scales: int) -> None:
        super().__init__()
        self.add_state("used", torch.zeros(scales, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("codes", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, used_SV: Tensor) -> None:
        """Count which codes are in use (`MultiScaleQuantizer.codes_in_use`)."""
        self.used += used_SV.sum(dim=1)
        self.codes += used_SV.shape[1]

    def compute(self) -> Tensor:
        """Return percentages, (S,) float32."""
        return self.used.float() / self.codes * 100
