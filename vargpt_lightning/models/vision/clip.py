"""The CLIP vision transformer, as LLaVA-1.5 sees through it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vargpt_lightning.models.vision.checks import check_heads, check_layer
from vargpt_lightning.models.vision.patches import channels as channels
from vargpt_lightning.models.vision.patches import stride as stride
from vargpt_lightning.models.vision.published import one_side, read_config, sizes_of
from vargpt_lightning.models.vision.tower import Published

if TYPE_CHECKING:  # experiments are read without torch
    from vargpt_lightning.models.core.vision_config import VisionConfig
    from vargpt_lightning.models.vision.networks.clip import ClipTower

NAME = "clip"
SCALING = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
FIT = "clip"
BLOCKS = "model.encoder.layers"
OPTIONS = ("hidden_act", "layer_norm_eps")


def published_sizes(published: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a config.json of CLIP says."""
    read = read_config(published, "clip_vision_model")
    sizes = sizes_of(read, OPTIONS)
    return {**sizes, "mlp": read.intermediate_size, "picture_size": one_side(read, "image_size")}


PUBLISHED = Published(
    model_types=("clip", "clip_vision_model"),
    names=(("vision_model.", "vision_tower.model."), ("", "vision_tower.model.")),
    unused=("text_model.", "logit_scale", "text_projection.", "visual_projection."),
    sizes=published_sizes,
)


def check(config: VisionConfig) -> None:
    """Raise UserError for sizes that do not fit each other."""
    check_heads(config)
    check_layer(config, normed=False)


def build(config: VisionConfig) -> ClipTower:
    """Return the tower with fresh weights."""
    from vargpt_lightning.models.vision.networks.clip import ClipTower

    return ClipTower(config)
