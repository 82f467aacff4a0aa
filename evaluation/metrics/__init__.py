"""Measures of drawings as torchmetrics: for a LightningModule of your own, and for the commands of this package.

Networks belong in `evaluation.features`; which pictures a command measures belongs in `evaluation.images` and
`evaluation.run`. Each name is imported when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vargpt_lightning.utils.lazy import lazily

if TYPE_CHECKING:
    from vargpt_lightning.evaluation.metrics.base import Features as Features
    from vargpt_lightning.evaluation.metrics.base import Given as Given
    from vargpt_lightning.evaluation.metrics.clip_score import CLIPScore as CLIPScore
    from vargpt_lightning.evaluation.metrics.cmmd import CLIPMaximumMeanDiscrepancy as CLIPMaximumMeanDiscrepancy
    from vargpt_lightning.evaluation.metrics.density_coverage import DensityCoverage as DensityCoverage
    from vargpt_lightning.evaluation.metrics.efficientnet import (
        EfficientNetKernelDistance as EfficientNetKernelDistance,
    )
    from vargpt_lightning.evaluation.metrics.fid import FrechetInceptionDistance as FrechetInceptionDistance
    from vargpt_lightning.evaluation.metrics.identification import IdentificationRate as IdentificationRate
    from vargpt_lightning.evaluation.metrics.inception_score import InceptionScore as InceptionScore
    from vargpt_lightning.evaluation.metrics.kid import KernelInceptionDistance as KernelInceptionDistance
    from vargpt_lightning.evaluation.metrics.networks import ClipFeatures as ClipFeatures
    from vargpt_lightning.evaluation.metrics.networks import EfficientNetLite0Features as EfficientNetLite0Features
    from vargpt_lightning.evaluation.metrics.networks import FidelityFeatures as FidelityFeatures
    from vargpt_lightning.evaluation.metrics.pair_score import PairScore as PairScore
    from vargpt_lightning.evaluation.metrics.precision_recall import PrecisionRecall as PrecisionRecall

_LAZY = {
    "CLIPMaximumMeanDiscrepancy": "cmmd",
    "ClipFeatures": "networks",
    "DensityCoverage": "density_coverage",
    "PairScore": "pair_score",
    "CLIPScore": "clip_score",
    "EfficientNetKernelDistance": "efficientnet",
    "EfficientNetLite0Features": "networks",
    "Features": "base",
    "FidelityFeatures": "networks",
    "FrechetInceptionDistance": "fid",
    "Given": "base",
    "IdentificationRate": "identification",
    "InceptionScore": "inception_score",
    "KernelInceptionDistance": "kid",
    "PrecisionRecall": "precision_recall",
}


__getattr__ = lazily(__name__, _LAZY)
