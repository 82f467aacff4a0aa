"""The mean of what a model says of drawings and the words that they should show: VQAScore, PickScore and their kin.

Scores of different models do not compare: name the model and its weights beside every figure.

Shapes: B pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vargpt_lightning.evaluation.base.pairs import PairScorer
from vargpt_lightning.evaluation.metrics.base import PictureMetric, ValueRange, as_bytes, as_images
from vargpt_lightning.utils.errors import UserError


class PairScore(PictureMetric):
    """The mean score of drawings with the words that they should show, the larger the better.

    `update` takes drawings (B, 3, H, W), uint8 or floats in `value_range`, and B texts. The state is a number for each
    pair; their mean does not depend on the order. `compute_all` has `<name>`, its standard error `<name>_error` and
    `<name>_n`, where `<name>` is the scorer's kind.

    Args:
        scorer: what scores pairs, such as `VQAScorer`.
        value_range: what black and white are in pictures of floats.
        settings: torchmetrics' own.
    """

    higher_is_better = True
    scores: list[Tensor]

    def __init__(self, scorer: PairScorer, *, value_range: ValueRange = (0.0, 1.0), **settings: Any) -> None:
        super().__init__(value_range, **settings)
        self._scorer = (scorer,)  # a module finds no other module in a tuple
        self.headline = scorer.kind
        self.add_rows("scores", dtype=torch.float64)

    def update(self, pictures: Tensor, texts: Sequence[str]) -> None:
        """Count drawings with the words that they should show.

        Raises:
            UserError: not as many texts as drawings.
        """
        if len(texts) != len(pictures):
            raise UserError(f"{len(pictures)} pictures with {len(texts)} texts; expected one for each")
        if texts:
            found = self._scorer[0].scores(as_images(as_bytes(pictures, self.value_range)), list(texts))
            self._count(found)

    def add(self, scores_B: Tensor | Sequence[float]) -> None:
        """Count pairs that have been scored elsewhere."""
        self.touched()
        self._count(scores_B)

    def _count(self, scores_B: Tensor | Sequence[float]) -> None:
        self.scores.append(torch.as_tensor(scores_B, dtype=torch.float64).to(self.device))

    def _values(self) -> dict[str, float]:
        values = self.rows("scores").tolist()
        if not values:
            raise UserError(f"no drawing has a {self.headline}; expected some that decode")
        mean = math.fsum(values) / len(values)
        squares = math.fsum((value - mean) ** 2 for value in values)
        error = math.sqrt(squares / (len(values) - 1) / len(values)) if len(values) > 1 else math.nan
        return {self.headline: mean, f"{self.headline}_error": error, f"{self.headline}_n": len(values)}
