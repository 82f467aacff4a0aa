"""CMMD: the squared distance of two sets of pictures' CLIP embeddings under a Gaussian kernel.

Shapes: N drawn pictures, M real pictures, D embedding channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vargpt_lightning.evaluation.metrics.base import Features, TwoSets, ValueRange
from vargpt_lightning.utils.errors import UserError

WIDTH = 10.0
SCALE = 1000.0
BLOCK = 2048  # rows whose distances are in memory together


def gaussian_discrepancy(drawn_ND: Tensor, real_MD: Tensor) -> dict[str, float]:
    """1000 times the squared MMD with a Gaussian kernel of width 10, biased, as `cmmd`; in float64.

    Raises UserError for an empty set.

    Source: Jayasumana et al., arXiv 2401.09603, section 4.
    """
    if not len(drawn_ND) or not len(real_MD):
        raise UserError(f"CMMD of {len(drawn_ND)} drawn and {len(real_MD)} real pictures; expected some of both")
    drawn_ND, real_MD = drawn_ND.double(), real_MD.double()
    own = _mean_kernel(drawn_ND, drawn_ND) + _mean_kernel(real_MD, real_MD)
    return {"cmmd": SCALE * (own - 2 * _mean_kernel(drawn_ND, real_MD))}


def _mean_kernel(x_ND: Tensor, y_MD: Tensor) -> float:
    total = 0.0
    for rows_BD in x_ND.split(BLOCK):
        squares_BM = torch.cdist(rows_BD, y_MD, compute_mode="donot_use_mm_for_euclid_dist").square()
        total += float(torch.exp(-squares_BM / (2 * WIDTH**2)).sum())
    return total / (len(x_ND) * len(y_MD))


class CLIPMaximumMeanDiscrepancy(TwoSets):
    """CMMD: how far CLIP embeddings of drawn and of real pictures lie apart; no unit, 0 for equal sets.

    Unlike FID it assumes no Gaussian features, and a few thousand pictures are enough. `update` takes pictures
    (B, 3, H, W), uint8 or floats in `value_range`, and whether they are real; the states are their embeddings, float32.

    Args:
        features: `ClipFeatures`, or `Given` for unit embeddings; published figures are of OpenAI's ViT-L/14 at 336.
        value_range: what black and white are in pictures of floats.
        settings: torchmetrics' own.

    Source: Jayasumana et al., Rethinking FID, 2024.
    """

    higher_is_better = False
    headline = "cmmd"

    def __init__(self, features: Features, *, value_range: ValueRange = (0.0, 1.0), **settings: Any) -> None:
        super().__init__(features, value_range, **settings)

    def _values(self) -> dict[str, float]:
        return self.both(gaussian_discrepancy)
