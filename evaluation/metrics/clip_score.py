"""CLIP score: 100 x cosine of a drawing and the words that it should show (Hessel et al., 2021, without their weight).

Scores of different models do not compare: name the model and its weights beside every figure.

Shapes: B pairs, D embedding channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vargpt_lightning.evaluation.features.clip import MODEL, SCALE, WEIGHTS, ClipModel, open_clip_model
from vargpt_lightning.evaluation.features.finite import check_rows
from vargpt_lightning.evaluation.metrics.base import PictureMetric, ValueRange, as_bytes, as_images
from vargpt_lightning.utils.errors import UserError

CLAMPS = ("none", "each")
"""What happens to negative scores: nothing, or each becomes 0."""


def cosine_scores(pictures_BD: Tensor, texts_BD: Tensor, clamp: str = "none") -> Tensor:
    """100 x cosine of each picture with the text at the same place, (B,) float64; `clamp` is one of CLAMPS."""
    if clamp not in CLAMPS:
        raise UserError(f"clamp {clamp!r}; expected one of {', '.join(CLAMPS)}")
    unit = [torch.nn.functional.normalize(side_BD.double(), dim=-1) for side_BD in (pictures_BD, texts_BD)]
    scores_B = SCALE * (unit[0] * unit[1]).sum(dim=-1)
    return scores_B.clamp(min=0) if clamp == "each" else scores_B


def score_summary(scores: Sequence[float], truncated: int) -> dict[str, float]:
    """Mean, its standard error, the count, and how many texts were cut; UserError where there is no score."""
    if not scores:
        raise UserError("no drawing has a CLIP score; expected some that decode")
    mean = math.fsum(scores) / len(scores)
    squares = math.fsum((score - mean) ** 2 for score in scores)
    error = math.sqrt(squares / (len(scores) - 1) / len(scores)) if len(scores) > 1 else math.nan
    return {"clip": mean, "clip_error": error, "clip_n": len(scores), "clip_truncated": truncated}


class CLIPScore(PictureMetric):
    """The mean CLIP score of drawings and the words that they should show, at most 100.

    `update` takes drawings (B, 3, H, W), uint8 or floats in `value_range`, and B texts. The states are a number for
    each pair and how many texts were cut; their mean does not depend on the order. `compute_all` has clip, its standard
    error clip_error, clip_n and clip_truncated.

    Args:
        model: what embeds pictures and texts, from `open_clip_model` or `transformers_clip`; None is OpenAI's ViT-L/14
            of open_clip, loaded with the first pictures.
        clamp: "each" makes negative scores 0, as Hessel et al. do; "none" leaves them.
        value_range: what black and white are in pictures of floats.
        settings: torchmetrics' own.

    Source: Hessel et al., CLIPScore, 2021, without their weight of 2.5.
    """

    higher_is_better = True
    headline = "clip"
    scores: list[Tensor]
    truncated: Tensor

    def __init__(
        self,
        model: ClipModel | None = None,
        *,
        clamp: str = "none",
        value_range: ValueRange = (0.0, 1.0),
        **settings: Any,
    ) -> None:
        super().__init__(value_range, **settings)
        self._model, self.clamp = [model], clamp  # a module finds no other module in a list
        self.add_rows("scores", dtype=torch.float64)
        self.add_state("truncated", torch.tensor(0), dist_reduce_fx="sum")

    @property
    def model(self) -> ClipModel:
        """What embeds pictures and texts."""
        found = self._model[0] or open_clip_model(MODEL, WEIGHTS)
        self._model[0] = found
        return found

    def update(self, pictures: Tensor, texts: Sequence[str]) -> None:
        """Count drawings with the words that they should show.

        Raises:
            UserError: not as many texts as drawings, or embeddings that are no numbers.
        """
        if len(texts) != len(pictures):
            raise UserError(f"{len(pictures)} pictures with {len(texts)} texts; expected one for each")
        if not texts:
            return
        pictures_BD = self.model.pictures(as_images(as_bytes(pictures, self.value_range)))
        texts_BD, cut = self.model.texts(list(texts))
        check_rows(pictures_BD, [f"picture {place} of the batch" for place in range(len(texts))], "CLIP")
        check_rows(texts_BD, list(texts), "CLIP")
        self._count(cosine_scores(pictures_BD, texts_BD, self.clamp), sum(cut))

    def add(self, scores_B: Tensor | Sequence[float], truncated: int = 0) -> None:
        """Count pairs that have been scored elsewhere, and how many of their texts were cut."""
        self.touched()
        self._count(scores_B, truncated)

    def _count(self, scores_B: Tensor | Sequence[float], truncated: int) -> None:
        self.scores.append(torch.as_tensor(scores_B, dtype=torch.float64).to(self.device))
        self.truncated += truncated

    def _values(self) -> dict[str, float]:
        return score_summary(self.rows("scores").tolist(), int(self.truncated))
