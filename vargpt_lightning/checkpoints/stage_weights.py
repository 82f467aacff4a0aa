"""A stage's weights into a model, one tensor at a time."""

from __future__ import annotations

from pathlib import Path

from vargpt_lightning.checkpoints import layouts
from vargpt_lightning.checkpoints.copy import copy_into
from vargpt_lightning.checkpoints.lazy_tensors import Held, Stored, open_weights
from vargpt_lightning.models.vargpt import VARGPTModel


def load_weights(model: VARGPTModel, file: Path) -> None:
    """Load a stage's weights into a model, all of them, one tensor at a time; raises as `stage_weights` does."""
    targets = model.state_dict()
    for key, stored in stage_weights(model, file).items():
        copy_into(targets[key], stored, key)


def stage_weights(model: VARGPTModel, file: Path) -> dict[str, Stored | Held]:
    """Return a stage's weights by the names of the model, unread; the model may be without memory.

    Raises:
        UserError: the file is missing or broken, or is of a model with other parts or sizes.
    """
    state = open_weights(file)
    # The frozen EfficientNet comes with its package and is not stored again.
    own = model.config.vision.kind == "efficientnet_lite0" and not any(key.startswith("vision_tower.") for key in state)
    keep = [key for key in model.state_dict() if own and key.startswith("vision_tower.")]
    return layouts.fitting(model, state, source=str(file), keep=keep)
