"""The LightningModule of a stage."""

from __future__ import annotations

from torch.nn.parallel import DistributedDataParallel

from vargpt_lightning.models.language.quantization import low_bit_layers
from vargpt_lightning.modules.base import StageModule


def keep_packed_apart(module: StageModule) -> None:
    """Let ddp leave weights in few bits alone: each process has packed its own, and ddp would send them every step."""
    if names := low_bit_layers(module):
        packed = [f"{name}.{key}" for name in names for key in ("packed", "scales")]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, packed)
