"""What Lightning's DDP must leave alone in a model."""

from __future__ import annotations

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from vargpt_lightning.models.language.quantization import low_bit_layers


def keep_packed_apart(module: nn.Module) -> None:
    """Let DDP leave weights in few bits alone: each process has packed its own, and DDP would send them every step."""
    if names := low_bit_layers(module):
        packed = [f"{name}.{key}" for name in names for key in ("packed", "scales")]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, packed)
