"""The SigLIP 2 vision transformer that sees pictures in their own shape (NaFlex)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vargpt_lightning.models.vision import siglip
from vargpt_lightning.models.vision.patches import channels as channels
from vargpt_lightning.models.vision.patches import stride as stride
from vargpt_lightning.models.vision.published import read_config, sizes_of
from vargpt_lightning.models.vision.siglip import check as check

if TYPE_CHECKING:  # experiments are read without torch
    from vargpt_lightning.models.core.vision_config import VisionConfig
    from vargpt_lightning.models.vision.networks.transformer import TransformerTower

NAME = "siglip2_naflex"
SCALING = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
FIT = "naflex"
BLOCKS = "model.encoder.layers"
OPTIONS = ("hidden_act", "layer_norm_eps")
POSITIONS = "interpolated"
_TABLE = 16
"""Side of the published table of positions."""


def published_sizes(published: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a config.json of SigLIP 2 says."""
    read = read_config(published, "siglip2_vision_model")
    sizes = sizes_of(read, OPTIONS)
    return {**sizes, "mlp": read.intermediate_size, "positions": math.isqrt(read.num_patches)}


PUBLISHED = replace(siglip.PUBLISHED, model_types=("siglip2", "siglip2_vision_model"), sizes=published_sizes)


def build(config: VisionConfig) -> TransformerTower:
    """Return the tower with fresh weights, without the head that pools."""
    from vargpt_lightning.models.vision.networks.naflex import Naflex
    from vargpt_lightning.models.vision.networks.transformer import TransformerTower

    return TransformerTower(Naflex(config, config.positions or _TABLE), BLOCKS)
