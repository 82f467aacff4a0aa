"""Improved precision and recall of drawn pictures (Kynkäänniemi et al., 2019), by torch-fidelity's function.

Shapes: N drawn pictures, M real pictures, D feature channels.
"""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from vargpt_lightning.evaluation.metrics.base import Features, TwoSets, ValueRange
from vargpt_lightning.evaluation.metrics.networks import FidelityFeatures
from vargpt_lightning.utils.errors import UserError


def precision_recall(
    drawn_ND: Tensor, real_MD: Tensor, *, neighbours: int = 3, batch_size: int = 10000
) -> dict[str, float]:
    """Improved precision and recall by torch-fidelity; sets above the batch size are compared part by part.

    Raises UserError for sets without enough neighbours.
    """
    from torch_fidelity.metric_prc import prc_features_to_metric

    fewest = min(len(drawn_ND), len(real_MD))
    if not 1 <= neighbours < fewest:
        raise UserError(f"precision and recall with {neighbours} neighbours of {fewest} pictures; expected fewer")
    parts = max(len(drawn_ND), len(real_MD)) > batch_size  # else a table of all distances fits
    settings = {"prc_neighborhood": neighbours, "prc_batch_size": batch_size, "save_cpu_ram": parts, "verbose": False}
    return {name: float(value) for name, value in prc_features_to_metric(drawn_ND, real_MD, **settings).items()}


class PrecisionRecall(TwoSets):
    """The share of drawn pictures among the real ones (precision), and of real among the drawn ones (recall), 0 to 1.

    A picture is among a set when its features lie within the distance of one of its pictures to that one's
    `neighbours`-th neighbour. `update` takes pictures (B, 3, H, W), uint8 or floats in `value_range`, and whether they
    are real; the states are their features, float32. `compute_all` has precision, recall and f_score.

    Args:
        features: a network (see `Features`); None is Inception's last pool; torch-fidelity's own default is
            `FidelityFeatures("fc2_relu", network="vgg16")`.
        figure: what `compute` returns.
        neighbours: see above; a set needs more pictures than that.
        value_range: what black and white are in pictures of floats.
        settings: torchmetrics' own.

    Source: Kynkäänniemi et al., Improved precision and recall metric for assessing generative models, 2019.
    """

    higher_is_better = True

    def __init__(
        self,
        features: Features | None = None,
        *,
        figure: Literal["precision", "recall", "f_score"] = "f_score",
        neighbours: int = 3,
        value_range: ValueRange = (0.0, 1.0),
        **settings: Any,
    ) -> None:
        super().__init__(features or FidelityFeatures(), value_range, **settings)
        self.headline, self.neighbours = figure, neighbours

    def _values(self) -> dict[str, float]:
        return self.both(precision_recall, neighbours=self.neighbours)
