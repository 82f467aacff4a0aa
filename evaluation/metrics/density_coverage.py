"""Density and coverage: precision and recall that outliers among the real pictures do not spoil.

Shapes: N drawn pictures, M real pictures, D feature channels.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from vargpt_lightning.evaluation.metrics.base import Features, TwoSets, ValueRange
from vargpt_lightning.evaluation.metrics.networks import FidelityFeatures
from vargpt_lightning.utils.errors import UserError

BLOCK = 1024  # real pictures whose distances are in memory together


def density_coverage(drawn_ND: Tensor, real_MD: Tensor, *, neighbours: int = 5) -> dict[str, float]:
    """Density, which may be above 1, and coverage, 0 to 1; distances are Euclidean, in float64.

    Raises UserError for sets without enough neighbours.

    Source: Naeem et al., arXiv 2002.09797, equations 4 and 5.
    """
    if not 1 <= neighbours < len(real_MD) or not len(drawn_ND):
        raise UserError(
            f"density and coverage with {neighbours} neighbours of {len(real_MD)} real and {len(drawn_ND)} drawn "
            "pictures; expected fewer neighbours than real pictures, and some drawn ones"
        )
    drawn_ND, real_MD = drawn_ND.double(), real_MD.double()
    within = covered = 0
    for rows_BD in real_MD.split(BLOCK):
        own_BM = _distances(rows_BD, real_MD)
        radius_B1 = own_BM.kthvalue(neighbours + 1, dim=1, keepdim=True).values  # the nearest is the picture itself
        inside_BN = _distances(rows_BD, drawn_ND) < radius_B1
        within += int(inside_BN.sum())
        covered += int(inside_BN.any(dim=1).sum())
    return {"density": within / (neighbours * len(drawn_ND)), "coverage": covered / len(real_MD)}


def _distances(x_BD: Tensor, y_MD: Tensor) -> Tensor:
    return torch.cdist(x_BD, y_MD, compute_mode="donot_use_mm_for_euclid_dist")


class DensityCoverage(TwoSets):
    """How densely drawn pictures lie around real ones, and the share of real pictures that have a drawn one near.

    Near is within the distance to a real picture's `neighbours`-th neighbour among the real ones. `update` takes
    pictures (B, 3, H, W), uint8 or floats in `value_range`, and whether they are real; the states are their features,
    float32. `compute_all` has density and coverage.

    Args:
        features: a network (see `Features`); None is Inception's last pool.
        figure: what `compute` returns.
        neighbours: see above; there have to be more real pictures than that.
        value_range: what black and white are in pictures of floats.
        settings: torchmetrics' own.

    Source: Naeem et al., Reliable fidelity and diversity metrics for generative models, 2020.
    """

    higher_is_better = True

    def __init__(
        self,
        features: Features | None = None,
        *,
        figure: Literal["density", "coverage"] = "density",
        neighbours: int = 5,
        value_range: ValueRange = (0.0, 1.0),
        **settings: Any,
    ) -> None:
        super().__init__(features or FidelityFeatures(), value_range, **settings)
        self.headline, self.neighbours = figure, neighbours

    def _values(self) -> dict[str, float]:
        return self.both(density_coverage, neighbours=self.neighbours)
