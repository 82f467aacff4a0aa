"""Optimizers and schedules of a stage, from its settings."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from vargpt_lightning.errors import UserError
from vargpt_lightning.modules.stage import OptimizerConfig, ScheduleConfig


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return the trained parameters in two groups: matrices and kernels with decay; the others, embeddings too, without."""
    embeddings = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
    decayed: list[Tensor] = []
    plain: list[Tensor] = []
    for parameter in module.parameters():
        if parameter.requires_grad:
            (decayed if parameter.dim() > 1 and id(parameter) not in embeddings else plain).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def build_optimizer(module: nn.Module, config: OptimizerConfig) -> Optimizer:
    """Return the optimizer of the module's trained parameters.

    Raises:
        UserError: when nothing is to be trained, or the name is unknown.
    """
    groups = parameter_groups(module, config.weight_decay)
    if not groups:
        raise UserError("optimizer: no parameter is to be trained; expected a stage that trains some submodule")
    if config.name != "adamw":
        raise UserError(f"optimizer.name: got {config.name!r}, expected adamw")
    fused = all(parameter.device.type in ("cuda", "cpu") for group in groups for parameter in group["params"])
    return AdamW(groups, lr=config.lr, betas=tuple(config.betas), fused=fused)


def learning_rate_factor(step: int, total: int, config: ScheduleConfig) -> float:
    """Return the factor on the peak learning rate at a step: linear warm-up, then cosine, linear or constant."""
    warmup = config.warmup * total if config.warmup < 1 else config.warmup
    if step < warmup:
        return (step + 1) / (warmup + 1)
    share = min(1.0, (step - warmup) / max(1.0, total - warmup))
    shape = {"cosine": 0.5 * (1 + math.cos(math.pi * share)), "linear": 1 - share, "constant": 1.0}
    if config.name not in shape:
        raise UserError(f"schedule.name: got {config.name!r}, expected one of {', '.join(shape)}")
    return 1.0 if config.name == "constant" else config.final + (1 - config.final) * shape[config.name]


def build_schedule(optimizer: Optimizer, total: int, config: ScheduleConfig) -> LambdaLR:
    """Return the schedule over `total` optimizer steps."""
    return LambdaLR(optimizer, lambda step: learning_rate_factor(step, total, config))


def count_parameters(parameters: Iterable[torch.nn.Parameter]) -> int:
    """Return how many numbers the parameters hold."""
    return sum(parameter.numel() for parameter in parameters)
