"""Optimizers and schedules of a stage, from its settings."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from vargpt_lightning.distributed.tensors import whole_shape
from vargpt_lightning.modules.optim.muon import Muon
from vargpt_lightning.recipe.stage import OptimizerConfig, ScheduleConfig
from vargpt_lightning.utils.errors import UserError

HEADS = ("lm_head", "head", "embed_tokens", "class_emb")
"""Modules whose rows are a vocabulary's: their updates are not those of an inner matrix."""
SHAPES: dict[str, Callable[[float], float]] = {
    "cosine": lambda share: 0.5 * (1 + math.cos(math.pi * share)),
    "linear": lambda share: 1 - share,
    "constant": lambda share: 1 - share,
}
"""What is left of the fall from the peak to `final` after a share (0 to 1) of it; a constant rate falls at its end."""


def parameter_groups(module: nn.Module, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Return the trained parameters in groups: matrices and kernels with decay; all others, embeddings too, without.

    With Muon the matrices inside of the networks are a group of their own; embeddings and the heads over a vocabulary
    stay with AdamW (see `Muon`).
    """
    embeddings = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
    groups: dict[str, list[nn.Parameter]] = {"muon": [], "decayed": [], "plain": []}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        shape = whole_shape(parameter)
        inner = len(shape) > 1 and id(parameter) not in embeddings and min(shape[:2]) > 1
        if not inner:
            groups["plain"].append(parameter)
        elif config.name == "muon" and name.split(".")[-2] not in HEADS:
            groups["muon"].append(parameter)
        else:
            groups["decayed"].append(parameter)
    decay = {"params": groups["decayed"], "weight_decay": config.weight_decay}
    plain = {"params": groups["plain"], "weight_decay": 0.0}
    muon_lr = config.lr if config.muon_lr is None else config.muon_lr
    muon = {"params": groups["muon"], "weight_decay": config.weight_decay, "lr": muon_lr, "muon": True}
    return [group for group in (muon, decay, plain) if group["params"]]


def build_optimizer(module: nn.Module, config: OptimizerConfig) -> Optimizer:
    """Return the optimizer of the module's trained parameters.

    Raises:
        UserError: when nothing is to be trained, or the name is unknown.
    """
    groups = parameter_groups(module, config)
    if not groups:
        raise UserError("optimizer: no parameter is to be trained; expected a stage that trains some submodule")
    if config.name == "muon":
        return Muon(groups, lr=config.lr, betas=config.betas)
    if config.name != "adamw":
        raise UserError(f"optimizer.name: got {config.name!r}, expected adamw or muon")
    devices = {parameter.device.type for group in groups for parameter in group["params"]}
    return AdamW(groups, lr=config.lr, betas=config.betas, fused=devices <= {"cuda", "cpu"})


def learning_rate_factor(step: int, total: int, config: ScheduleConfig) -> float:
    """Return the factor on the peak learning rate at a step: linear warm-up, then cosine, linear or constant.

    A constant rate may fall linearly at the end. What falls has reached `final` at the last step, `total` - 1, however
    few steps there are; what comes after it stays there.
    """
    if config.name not in SHAPES:
        raise UserError(f"schedule.name: got {config.name!r}, expected one of {', '.join(SHAPES)}")
    warmup = config.warmup * total if config.warmup < 1 else config.warmup
    decay = config.decay * total if config.decay < 1 else config.decay
    last, falls = total - 1, config.name != "constant" or decay > 0
    if falls and step >= last:
        return config.final
    if step < warmup:
        return (step + 1) / (warmup + 1)
    # before the last step, so that neither length is 0
    begin = last - decay if config.name == "constant" else warmup
    share = (step - begin) / (last - begin) if falls else 0.0
    return config.final + (1 - config.final) * SHAPES[config.name](max(0.0, share))


def build_schedule(optimizer: Optimizer, total: int, config: ScheduleConfig) -> LambdaLR:
    """Return the schedule over `total` optimizer steps."""
    if total == 1 and learning_rate_factor(0, total, config) == 0:
        rank_zero_warn(f"schedule.final={config.final}: the stage's 1 step is its last and changes nothing")
    return LambdaLR(optimizer, lambda step: learning_rate_factor(step, total, config))
