"""The DINOv2 vision transformer, without registers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vargpt_lightning.models.vision.checks import check_activation, check_heads, check_layer
from vargpt_lightning.models.vision.patches import channels as channels
from vargpt_lightning.models.vision.patches import stride as stride
from vargpt_lightning.models.vision.published import one_side, only, read_config, sizes_of
from vargpt_lightning.models.vision.tower import Published
from vargpt_lightning.utils.ranges import require

if TYPE_CHECKING:  # experiments are read without torch
    from vargpt_lightning.models.core.vision_config import VisionConfig
    from vargpt_lightning.models.vision.networks.transformer import TransformerTower

NAME = "dinov2"
SCALING = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
FIT = "dinov2"
BLOCKS = "model.encoder.layer"
OPTIONS = ("hidden_act", "layer_norm_eps", "layerscale_value", "qkv_bias", "use_swiglu_ffn", "use_mask_token")
POSITIONS = "interpolated"


def published_sizes(published: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a config.json of DINOv2 says."""
    read = read_config(published, "dinov2")
    only(read, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    sizes = sizes_of(read, OPTIONS)
    return {**sizes, "mlp": read.mlp_ratio * read.hidden_size, "picture_size": one_side(read, "image_size")}


PUBLISHED = Published(
    model_types=("dinov2",),
    names=(("dinov2.", "vision_tower.model."), ("", "vision_tower.model.")),
    unused=("classifier.",),
    sizes=published_sizes,
)


def check(config: VisionConfig) -> None:
    """Raise UserError for sizes that do not fit each other."""
    check_heads(config)
    check_layer(config)
    check_activation(config, "gelu")
    require(config.mlp % config.width == 0, "vision.mlp", config.mlp, f"a multiple of the width {config.width}")


def build(config: VisionConfig) -> TransformerTower:
    """Return the tower with fresh weights; its features leave out the class token."""
    from vargpt_lightning.models.vision.networks.dinov2 import Dinov2
    from vargpt_lightning.models.vision.networks.transformer import TransformerTower

    return TransformerTower(Dinov2(config), BLOCKS)
