"""Qwen2-VL's own vision transformer, which sees pictures in their own shape, with its merger as the projector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vargpt_lightning.models.vision.checks import check_heads
from vargpt_lightning.models.vision.tower import NATIVE, Published
from vargpt_lightning.utils.errors import UserError

if TYPE_CHECKING:  # experiments are read without torch
    from vargpt_lightning.models.core.vision_config import VisionConfig
    from vargpt_lightning.models.vision.networks.qwen2_vl import Merger
    from vargpt_lightning.models.vision.networks.transformer import TransformerTower

NAME = "qwen2_vl"
SCALING = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
FIT = "qwen2_vl"
BLOCKS = "model.blocks"
POSITIONS = "computed"
_USUAL = {"depth": 32, "embed_dim": 1280, "num_heads": 16, "mlp_ratio": 4, "patch_size": 14}
"""What a config.json means that does not say it."""
_BUILT = {"hidden_act": "quick_gelu", "in_channels": 3, "spatial_merge_size": 2, "temporal_patch_size": 2}


def published_sizes(published: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a config.json of Qwen2-VL says."""
    given = dict(published.get("vision_config") or {})
    for key, built in _BUILT.items():
        if given.get(key, built) != built:
            raise UserError(f"config.json: vision_config.{key}={given[key]!r} is not built here; expected {built!r}")
    said = {key: given.get(key, usual) for key, usual in _USUAL.items()}
    return {
        "width": said["embed_dim"],
        "layers": said["depth"],
        "heads": said["num_heads"],
        "mlp": int(said["embed_dim"] * said["mlp_ratio"]),
        "patch_size": said["patch_size"],
    }


PUBLISHED = Published(
    model_types=("qwen2_vl",),
    # as it is published, and as transformers 5 names it in memory
    names=(
        ("visual.merger.", "vision_projector."),
        ("model.visual.merger.", "vision_projector."),
        ("visual.", "vision_tower.model."),
        ("model.visual.", "vision_tower.model."),
    ),
    unused=("model.layers.", "model.embed_tokens.", "model.norm.", "model.language_model.", "lm_head."),
    sizes=published_sizes,
)


def stride(config: VisionConfig) -> int:
    """Return the side of a token's patches."""
    return config.patch_size * NATIVE[FIT]


def check(config: VisionConfig) -> None:
    """Raise UserError for sizes that do not fit each other."""
    check_heads(config, quarters=True)


def channels(config: VisionConfig) -> int:
    """Return the width of a token's patches together."""
    return config.width * NATIVE[FIT] ** 2


def build(config: VisionConfig) -> TransformerTower:
    """Return the tower with fresh weights, without its merger."""
    from vargpt_lightning.models.vision.networks.qwen2_vl import Qwen2VL
    from vargpt_lightning.models.vision.networks.transformer import TransformerTower

    return TransformerTower(Qwen2VL(config), BLOCKS)


def projector(config: VisionConfig, width: int) -> Merger:
    """Return the merger with fresh weights."""
    from vargpt_lightning.models.vision.networks.qwen2_vl import Merger

    return Merger(config.width, width)
