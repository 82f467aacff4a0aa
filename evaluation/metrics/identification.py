"""Whether a drawing is the picture that was asked for: the nearest real one by its features, or among the nearest.

Shapes: N real pictures, M drawings, C feature channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from vargpt_lightning.evaluation.metrics.base import FeatureMetric, Features, ValueRange
from vargpt_lightning.evaluation.metrics.networks import EfficientNetLite0Features
from vargpt_lightning.utils.errors import UserError


@dataclass(frozen=True)
class Identification:
    """Counts of drawings whose asked-for picture was the nearest real one, or among the nearest five. Counts add up."""

    n: int = 0
    at_1: int = 0
    at_5: int = 0

    def __add__(self, other: Identification) -> Identification:
        return Identification(self.n + other.n, self.at_1 + other.at_1, self.at_5 + other.at_5)


def identification_ranks(drawn_MC: Tensor, real_NC: Tensor, asked_M: Sequence[int]) -> list[int]:
    """For each drawing the rank (0 is the nearest) of the real picture asked for, by cosine of the features.

    A tie counts against the drawing: of real pictures equally near, the one asked for comes last.
    """
    if len(drawn_MC) == 0:
        return []
    cosine_MN = cosine(drawn_MC, real_NC)
    asked = torch.as_tensor(list(asked_M))
    own_M1 = cosine_MN.gather(1, asked[:, None])
    return ((cosine_MN >= own_M1).sum(dim=1) - 1).tolist()


def cosine(x_MC: Tensor, y_NC: Tensor) -> Tensor:
    """Cosine of every row of x with every row of y, (M, N), in float64."""
    x_MC, y_NC = torch.nn.functional.normalize(x_MC.double()), torch.nn.functional.normalize(y_NC.double())
    return x_MC @ y_NC.T


def identification(ranks: Sequence[int], missing: int = 0) -> Identification:
    """Counts from ranks; `missing` requests that brought no picture count as not identified."""
    found = sum(rank == 0 for rank in ranks), sum(rank < 5 for rank in ranks)
    return Identification(len(ranks) + missing, *found)


class IdentificationRate(FeatureMetric):
    """The share of drawings, 0 to 1, whose nearest picture of a gallery by the cosine of features is the one asked for.

    `update` takes drawings (B, 3, H, W), uint8 or floats in `value_range`, and for each the place of the picture asked
    for in the gallery. The states are three counts. `compute_all` has n, at_1, at_5, rate_1 and rate_5.

    Args:
        gallery: real pictures (N, 3, H, W), or their features where `features` is `Given`.
        features: a network (see `Features`); None is EfficientNet-Lite0 at 128 pixels.
        nearest: 1 or 5, among how many the picture has to be for what `compute` returns; NaN before any drawing.
        value_range: what black and white are in pictures of floats.
        settings: torchmetrics' own.
    """

    higher_is_better = True
    n: Tensor
    at_1: Tensor
    at_5: Tensor

    def __init__(
        self,
        gallery: Tensor,
        features: Features | None = None,
        *,
        nearest: Literal[1, 5] = 1,
        value_range: ValueRange = (0.0, 1.0),
        **settings: Any,
    ) -> None:
        super().__init__(features or EfficientNetLite0Features(), value_range, **settings)
        self.headline = f"rate_{nearest}"
        self.gallery_NC = self.measured(gallery).cpu()
        for name in ("n", "at_1", "at_5"):
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")

    def update(self, pictures: Tensor, asked: Sequence[int] | Tensor, missing: int = 0) -> None:
        """Count drawings; `missing` requests that brought no picture count as not identified.

        Raises:
            UserError: not a place of the gallery for each drawing.
        """
        places, size = [int(place) for place in asked], len(self.gallery_NC)
        if len(places) != len(pictures):
            raise UserError(f"{len(pictures)} drawings with {len(places)} places; expected one for each")
        if wrong := [place for place in places if not 0 <= place < size]:
            raise UserError(f"place {wrong[0]} of a gallery of {size} pictures; expected 0 to {size - 1}")
        ranks = identification_ranks(self.measured(pictures).cpu(), self.gallery_NC, places)
        for name, count in asdict(identification(ranks, missing)).items():
            getattr(self, name).add_(count)

    def _values(self) -> dict[str, float]:
        counts = Identification(int(self.n), int(self.at_1), int(self.at_5))
        n = counts.n or math.nan
        return {**asdict(counts), "rate_1": counts.at_1 / n, "rate_5": counts.at_5 / n}
