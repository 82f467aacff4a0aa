"""What all vision transformers say alike: a token is a patch, and has the transformer's width. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vargpt_lightning.models.core.vision_config import VisionConfig


def stride(config: VisionConfig) -> int:
    """Return the side of a patch."""
    return config.patch_size


def channels(config: VisionConfig) -> int:
    """Return the transformer's width."""
    return config.width
