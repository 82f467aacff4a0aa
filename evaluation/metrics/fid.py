"""FID: the Frechet distance of two sets of pictures (Heusel et al., 2017), by torch-fidelity's function.

Shapes: B pictures, D feature channels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vargpt_lightning.evaluation.features.feature_sums import FeatureSums, Moments, load_moments, require_alike
from vargpt_lightning.evaluation.metrics.base import Features, SetMetric, ValueRange
from vargpt_lightning.evaluation.metrics.networks import FidelityFeatures
from vargpt_lightning.utils.errors import UserError


def moments(sums: Any) -> Moments:
    """Mean and covariance of sums of features."""
    return Moments(sums.mean(), sums.covariance(), sums.count, dict(sums.about))


def frechet_distance(drawn: Moments, real: Moments) -> float:
    """Squared Frechet distance of two Gaussians (Heusel et al., 2017, equation 6), by torch-fidelity in float64.

    Raises UserError for features of two lengths, and for statistics of another variant, layer, network or weights.
    """
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

    require_alike(drawn.about, real.about)
    if len(drawn.mu) != len(real.mu):
        raise UserError(f"features of {len(drawn.mu)} channels beside statistics of {len(real.mu)}; expected the same")
    both: list[dict[str, np.ndarray]] = [{"mu": side.mu, "sigma": side.sigma} for side in (drawn, real)]
    return float(fid_statistics_to_metric(*both, False)[KEY_METRIC_FID])


class FrechetInceptionDistance(SetMetric):
    """FID: how far Gaussians fitted to features of drawn and of real pictures lie apart; no unit, 0 for equal sets.

    `update` takes pictures (B, 3, H, W), uint8 or floats in `value_range`, and whether they are real. The states are
    counts, sums and sums of outer products, float64: memory does not grow with the pictures. Sets with fewer pictures
    than feature channels have a distance that says more of their size than of the pictures.

    Args:
        features: a network (see `Features`); None is Inception's last pool, 2048 channels, as torch-fidelity has it.
        reference: the real side, from a file of statistics or as `Moments`; then only drawn pictures are counted.
        value_range: what black and white are in pictures of floats.
        settings: torchmetrics' own.

    Source: Heusel et al., GANs trained by a two time-scale update rule, 2017.
    """

    higher_is_better = False
    headline = "fid"
    drawn_count: Tensor
    drawn_sum: Tensor
    drawn_outer: Tensor
    real_count: Tensor
    real_sum: Tensor
    real_outer: Tensor

    def __init__(
        self,
        features: Features | None = None,
        reference: Path | str | Moments | None = None,
        *,
        value_range: ValueRange = (0.0, 1.0),
        **settings: Any,
    ) -> None:
        super().__init__(features or FidelityFeatures(), value_range, **settings)
        self.reference = load_moments(Path(reference)) if isinstance(reference, (str, Path)) else reference
        self.about = dict.fromkeys((False, True), self.features.about)
        size = self.features.size
        for side in ("drawn", "real"):
            self.add_state(f"{side}_count", torch.tensor(0), dist_reduce_fx="sum")
            self.add_state(f"{side}_sum", torch.zeros(size, dtype=torch.float64), dist_reduce_fx="sum")
            self.add_state(f"{side}_outer", torch.zeros(size, size, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, pictures: Tensor, real: bool) -> None:
        """Count drawn or real pictures, (B, 3, H, W) uint8 or floats in `value_range`.

        Raises:
            UserError: real ones, where the metric was made with a reference.
        """
        count, sum_D, outer_DD = self._side(real)
        sums = FeatureSums(0, sum_D, outer_DD)
        sums.add(self.measured(pictures))  # in place
        count += sums.count

    def add(self, sums: FeatureSums, real: bool) -> None:
        """Count pictures whose features have been summed elsewhere."""
        self.touched()
        count, sum_D, outer_DD = self._side(real)
        count += sums.count
        sum_D += sums.sum_D.to(sum_D.device)
        outer_DD += sums.outer_DD.to(outer_DD.device)
        self.about[real] = sums.about

    def _side(self, real: bool) -> tuple[Tensor, Tensor, Tensor]:
        if not real:
            return self.drawn_count, self.drawn_sum, self.drawn_outer
        if self.reference is not None:
            raise UserError("real pictures beside a reference; expected one of the two")
        return self.real_count, self.real_sum, self.real_outer

    def _values(self) -> dict[str, float]:
        return {"fid": frechet_distance(self._moments(False), self.reference or self._moments(True))}

    def _moments(self, real: bool) -> Moments:
        count, sum_D, outer_DD = self._side(real)
        return moments(FeatureSums(int(count), sum_D.cpu(), outer_DD.cpu(), dict(self.about[real])))
