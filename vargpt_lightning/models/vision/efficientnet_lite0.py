"""EfficientNet-Lite0 with its ImageNet weights, which come with a package: the tower of the default experiment."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # experiments are read without torch
    from vargpt_lightning.models.core.config import VisionConfig
    from vargpt_lightning.models.vision.networks.efficientnet import EfficientNetTower

NAME = "efficientnet_lite0"
SCALING = ((127 / 255,) * 3, (128 / 255,) * 3)
FIT = "pad"


def stride(config: VisionConfig) -> int:
    """Return the stride of the last feature map."""
    return 32


def channels(config: VisionConfig) -> int:
    """Return the channels after the last activation, of the last block, or of the former and a middle block."""
    return {"head": 1280, "blocks": 320, "levels": 1280 + 80}[config.feature]


def build(config: VisionConfig) -> EfficientNetTower:
    """Return the tower with the package's weights, or fresh ones where `pretrained` is false."""
    from vargpt_lightning.models.vision.networks.efficientnet import EfficientNetTower

    return EfficientNetTower(config)
