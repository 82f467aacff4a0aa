"""The LightningModule of a stage."""

from __future__ import annotations

from torch.nn.parallel import DistributedDataParallel

from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.models.language.quantization import low_bit_layers
from vargpt_lightning.modules.base import StageModule
from vargpt_lightning.modules.objectives import HEADS
from vargpt_lightning.modules.tokenizer import TokenizerModule
from vargpt_lightning.recipe.stage import Stage
from vargpt_lightning.training.datamodule import StageData
from vargpt_lightning.utils.errors import UserError


def build_module(model: VARGPT, stage: Stage, total_steps: int, data: StageData) -> StageModule:
    """Return the stage's LightningModule around the model.

    Raises:
        UserError: the stage asks for what the model cannot give.
    """
    if stage.feature_weight and model.config.vision.kind != "efficientnet_lite0":
        raise UserError(
            f"stages.{stage.name}.feature_weight={stage.feature_weight}: features come from EfficientNet, but "
            f"model.vision.kind is {model.config.vision.kind!r}; expected 0"
        )
    module = HEADS[stage.head](model, stage, total_steps)
    module.prepared = data.scaled
    if isinstance(module, TokenizerModule) and module.warmup_steps:
        module.calibration_pictures = data.calibration_pictures()
    return module


def keep_packed_apart(module: StageModule) -> None:
    """Let ddp leave weights in few bits alone: each process has packed its own, and ddp would send them every step."""
    if names := low_bit_layers(module):
        packed = [f"{name}.{key}" for name in names for key in ("packed", "scales")]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, packed)
