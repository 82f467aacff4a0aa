"""The CLIP vision transformer, as LLaVA-1.5 sees through it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vargpt_lightning.utils.ranges import require

if TYPE_CHECKING:  # experiments are read without torch
    from vargpt_lightning.models.core.config import VisionConfig
    from vargpt_lightning.models.vision.clip_network import ClipTower

NAME = "clip"
SCALING = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
FIT = "clip"


def stride(config: VisionConfig) -> int:
    """Return the side of a patch."""
    return config.patch_size


def check(config: VisionConfig) -> None:
    """Raise UserError for sizes that do not fit each other."""
    require(config.width % config.heads == 0, "vision.heads", config.heads, f"a divisor of the width {config.width}")
    states = config.layers + 1  # the embeddings' is the first
    expected = f"a hidden state of {config.layers} layers: {-states} to {config.layers}"
    require(-states <= config.feature_layer < states, "vision.feature_layer", config.feature_layer, expected)


def channels(config: VisionConfig) -> int:
    """Return the transformer's width."""
    return config.width


def build(config: VisionConfig) -> ClipTower:
    """Return the tower with fresh weights."""
    from vargpt_lightning.models.vision.clip_network import ClipTower

    return ClipTower(config)
