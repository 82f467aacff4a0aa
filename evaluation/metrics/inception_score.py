"""Inception Score (Salimans et al., 2016), by torch-fidelity's function.

Shapes: N pictures, V classes.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from vargpt_lightning.evaluation.metrics.base import Features, SetMetric, ValueRange
from vargpt_lightning.evaluation.metrics.networks import FidelityFeatures
from vargpt_lightning.utils.errors import UserError

ADM_SPLIT = 5000  # pictures in a split of the ADM evaluator's Inception Score


def inception_score(logits_NV: Tensor, *, variant: str = "torch_fidelity", splits: int = 10) -> dict[str, float]:
    """Inception Score, mean and deviation over splits, by torch-fidelity.

    The library shuffles and makes 10 splits; `adm` keeps the order, in splits of about 5000 as the ADM evaluator does.
    """
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric

    adm = variant == "adm"
    splits = max(1, math.ceil(len(logits_NV) / ADM_SPLIT)) if adm else splits
    if len(logits_NV) < splits:
        raise UserError(f"Inception Score of {len(logits_NV)} pictures in {splits} splits; expected more pictures")
    found = isc_features_to_metric(logits_NV, splits, not adm)
    return {"isc": found[KEY_METRIC_ISC_MEAN], "isc_std": found[KEY_METRIC_ISC_STD]}


class InceptionScore(SetMetric):
    """How sure Inception is of each drawing's class, and how many classes it sees: 1 to the number of classes.

    `update` takes drawings (B, 3, H, W), uint8 or floats in `value_range`; the states are their logits, float32, for
    the score shuffles all of them into splits. `compute_all` has the deviation over splits too, as `isc_std`.

    Args:
        features: what gives logits; None is Inception without the last bias, 1008 classes, as torch-fidelity has it.
        splits: parts whose scores are averaged.
        variant: "torch_fidelity" shuffles, "adm" keeps the order in splits of 5000; None is the features'.
        value_range: what black and white are in pictures of floats.
        settings: torchmetrics' own.

    Source: Salimans et al., Improved techniques for training GANs, 2016.
    """

    higher_is_better = True
    headline = "isc"
    logits: list[Tensor]

    def __init__(
        self,
        features: Features | None = None,
        *,
        splits: int = 10,
        variant: str | None = None,
        value_range: ValueRange = (0.0, 1.0),
        **settings: Any,
    ) -> None:
        super().__init__(features or FidelityFeatures("logits_unbiased"), value_range, **settings)
        self.splits = splits
        self.variant = str(variant or getattr(self.features, "variant", "torch_fidelity"))
        self.add_rows("logits", self.features.size)

    def update(self, pictures: Tensor) -> None:
        """Count drawings, (B, 3, H, W) uint8 or floats in `value_range`."""
        self.logits.append(self.measured(pictures).to(self.device, torch.float32))

    def _values(self) -> dict[str, float]:
        return inception_score(self.rows("logits").cpu(), variant=self.variant, splits=self.splits)
