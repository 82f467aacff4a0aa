"""The DINOv3 vision transformer: rotary positions, a class token and registers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vargpt_lightning.models.vision.checks import check_activation, check_heads, check_layer
from vargpt_lightning.models.vision.patches import channels as channels
from vargpt_lightning.models.vision.patches import stride as stride
from vargpt_lightning.models.vision.published import one_side, only, read_config, sizes_of
from vargpt_lightning.models.vision.tower import Published

if TYPE_CHECKING:  # experiments are read without torch
    from vargpt_lightning.models.core.vision_config import VisionConfig
    from vargpt_lightning.models.vision.networks.transformer import TransformerTower

NAME = "dinov3"
SCALING = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
FIT = "dinov3"
BLOCKS = "model.layer"
POSITIONS = "computed"
_BIASES = ("query_bias", "key_bias", "value_bias", "proj_bias", "mlp_bias")
OPTIONS = (
    *("hidden_act", "layer_norm_eps", "layerscale_value", "num_register_tokens", "rope_theta", "use_gated_mlp"),
    *_BIASES,
)


def published_sizes(published: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a config.json of DINOv3 says; its positions serve any size."""
    read = read_config(published, "dinov3_vit")
    only(read, attention_dropout=0.0)
    sizes = sizes_of(read, OPTIONS)
    return {**sizes, "mlp": read.intermediate_size, "picture_size": one_side(read, "image_size")}


PUBLISHED = Published(
    model_types=("dinov3_vit",),
    names=(("model.layer.", "vision_tower.model.layer."), ("", "vision_tower.model.")),  # the first: in memory
    unused=(),
    sizes=published_sizes,
)


def check(config: VisionConfig) -> None:
    """Raise UserError for sizes that do not fit each other."""
    check_heads(config, quarters=True)
    check_layer(config)
    check_activation(config, "gelu")


def build(config: VisionConfig) -> TransformerTower:
    """Return the tower with fresh weights; its features leave out the class token and registers."""
    from vargpt_lightning.models.vision.networks.dinov3 import Dinov3
    from vargpt_lightning.models.vision.networks.transformer import TransformerTower

    return TransformerTower(Dinov3(config), BLOCKS)
