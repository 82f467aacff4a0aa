"""The SigLIP vision transformer, and SigLIP 2's of fixed sizes, which is built like it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vargpt_lightning.models.vision.checks import check_activation, check_heads, check_layer
from vargpt_lightning.models.vision.patches import channels as channels
from vargpt_lightning.models.vision.patches import stride as stride
from vargpt_lightning.models.vision.published import one_side, read_config, sizes_of
from vargpt_lightning.models.vision.tower import Published

if TYPE_CHECKING:  # experiments are read without torch
    from vargpt_lightning.models.core.vision_config import VisionConfig
    from vargpt_lightning.models.vision.networks.transformer import TransformerTower

NAME = "siglip"
SCALING = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
FIT = "siglip"
BLOCKS = "model.encoder.layers"
OPTIONS = ("hidden_act", "layer_norm_eps")
POSITIONS = "interpolated"
SHORT_OF_PATCHES = (384, 14)
"""Size and patch of published towers (so400m) whose last six pixels are in no patch."""


def published_sizes(published: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a config.json of SigLIP says."""
    read = read_config(published, "siglip_vision_model")
    sizes = sizes_of(read, OPTIONS)
    return {**sizes, "mlp": read.intermediate_size, "picture_size": one_side(read, "image_size")}


PUBLISHED = Published(
    model_types=("siglip", "siglip_vision_model"),
    names=(("vision_model.", "vision_tower.model."), ("", "vision_tower.model.")),
    unused=("text_model.", "logit_", "vision_model.head.", "head."),
    sizes=published_sizes,
)


def leaves_rest(config: VisionConfig) -> bool:
    """Return whether it is of the published sizes that are no whole number of patches."""
    return (config.picture_size, config.patch_size) == SHORT_OF_PATCHES


def check(config: VisionConfig) -> None:
    """Raise UserError for sizes that do not fit each other."""
    check_heads(config)
    check_layer(config)
    check_activation(config, "gelu_pytorch_tanh")


def build(config: VisionConfig) -> TransformerTower:
    """Return the tower with fresh weights, without the head that pools."""
    from vargpt_lightning.models.vision.networks.siglip import Siglip
    from vargpt_lightning.models.vision.networks.transformer import TransformerTower

    return TransformerTower(Siglip(config), BLOCKS)
