"""A stage's weights, read into a model and written from one, tensor by tensor."""

from __future__ import annotations

from pathlib import Path

from vargpt_lightning.checkpoints.copy import load_tensor
from vargpt_lightning.checkpoints.hub import FullTensor
from vargpt_lightning.checkpoints.lazy_tensors import FileTensor, MemoryTensor, open_weights
from vargpt_lightning.checkpoints.published import layouts
from vargpt_lightning.checkpoints.write import write_safetensors
from vargpt_lightning.models.vargpt import VARGPTModel
from vargpt_lightning.runs.folder import StageFolder
from vargpt_lightning.utils.errors import UserError


def load_weights(model: VARGPTModel, file: Path) -> None:
    """Load a stage's weights into a model, all of them, one tensor at a time; raises as `stage_weights` does."""
    targets = model.state_dict()
    for key, stored in stage_weights(model, file).items():
        load_tensor(targets[key], stored, key)


def stage_weights(model: VARGPTModel, file: Path) -> dict[str, FileTensor | MemoryTensor]:
    """Return a stage's weights by the names of the model, unread; the model may be without memory.

    Raises:
        UserError: the file is missing or broken, or is of a model with other parts or sizes.
    """
    state = open_weights(file)
    # The frozen EfficientNet comes with its package and is not stored again.
    own = model.config.vision.kind == "efficientnet_lite0" and not any(key.startswith("vision_tower.") for key in state)
    keep = [key for key in model.state_dict() if own and key.startswith("vision_tower.")]
    return layouts.fitting(model, state, source=str(file), keep=keep)


def save_weights(model: VARGPTModel, folder: StageFolder, with_tower: bool = True, write: bool = True) -> None:
    """Write the model's state beside the stage's record, in one step.

    Sharded weights are gathered by all processes, one tensor at a time.

    Args:
        write: whether this is the process that writes.

    Raises:
        UserError: the file cannot be written.
    """
    state = {
        name: FullTensor(value)
        for name, value in model.state_dict().items()
        if with_tower or not name.startswith("vision_tower.")
    }
    try:
        write_safetensors(folder.weights, state, rank=0 if write else 1)
    except (UserError, OSError) as error:
        raise UserError(f"{folder.weights}: cannot be written ({error}); the stage's checkpoint is kept") from error
