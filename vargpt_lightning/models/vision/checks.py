"""Sizes of vision transformers that have to fit each other. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vargpt_lightning.utils.ranges import require, require_choice

if TYPE_CHECKING:
    from vargpt_lightning.models.core.vision_config import VisionConfig

ACTIVATIONS = ("gelu", "gelu_pytorch_tanh", "quick_gelu", "silu")


def check_activation(config: VisionConfig, usual: str) -> None:
    """Raise UserError for an activation that is not built."""
    require_choice("vision.options.hidden_act", config.options.get("hidden_act", usual), ACTIVATIONS)


def check_heads(config: VisionConfig, quarters: bool = False) -> None:
    """Raise UserError unless the width is whole heads, each of whole `quarters` where positions turn them."""
    require(config.width % config.heads == 0, "vision.heads", config.heads, f"a divisor of the width {config.width}")
    head = config.width // config.heads
    expected = f"heads of a multiple of 4, here they have {head}: positions in two dimensions turn them"
    require(not quarters or head % 4 == 0, "vision.heads", config.heads, expected)


def check_layer(config: VisionConfig, normed: bool = True) -> None:
    """Raise UserError unless the feature layer is one of the hidden states; None for the last where it is `normed`."""
    states = config.layers + 1  # the embeddings' is the first
    expected = f"a hidden state of {config.layers} layers: {-states} to {config.layers}"
    layer = config.feature_layer
    inside = normed if layer is None else -states <= layer < states
    require(inside, "vision.feature_layer", layer, expected)
