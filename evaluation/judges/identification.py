"""Identification: is the real picture that was asked for the nearest one? The same measure as the headline figure."""

from __future__ import annotations

from collections.abc import Sequence

from vargpt_lightning.evaluation.base.judge import Drawn, Verdict
from vargpt_lightning.evaluation.base.protocols import RealPicture

NAME = "identification"
TITLE = "share whose nearest real picture is the one asked for"


def judge(drawn: Sequence[Drawn], real: Sequence[RealPicture]) -> list[Verdict]:
    """Score 1 where the picture asked for is the nearest by EfficientNet's features, else 0; the nearest's name."""
    from vargpt_lightning.evaluation.features.efficientnet import EfficientNetFeatures
    from vargpt_lightning.evaluation.metrics.identification import cosine, identification_ranks

    if not drawn or not real:
        return [Verdict(0.0) for _ in drawn]
    features, place = EfficientNetFeatures(), {picture.key: number for number, picture in enumerate(real)}
    real_NC = features([picture.image for picture in real])
    drawn_MC = features([each.image for each in drawn])
    nearest = cosine(drawn_MC, real_NC).argmax(dim=1).tolist()
    ranks = identification_ranks(drawn_MC, real_NC, [place.get(each.picture or "", 0) for each in drawn])
    return [
        Verdict(float(rank == 0 and each.picture in place), real[near].name or real[near].key)
        for each, rank, near in zip(drawn, ranks, nearest, strict=True)
    ]
