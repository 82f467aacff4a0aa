"""Optimizers and schedules of a stage, from its settings."""

from __future__ import annotations

import math
from typing import Any

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from vargpt_lightning.errors import UserError
from vargpt_lightning.modules.muon import Muon
from vargpt_lightning.modules.shards import whole_shape
from vargpt_lightning.modules.stage import OptimizerConfig, ScheduleConfig

HEADS = ("lm_head", "head", "embed_tokens", "class_emb")
"""Modules whose rows are a vocabulary's: their updates are not those of an inner matrix."""


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

    A constant rate may fall linearly at the end.
    """
    warmup = config.warmup * total if config.warmup < 1 else config.warmup
    if step < warmup:
        return (step + 1) / (warmup + 1)
    share = min(1.0, (step - warmup) / max(1.0, total - warmup))
    shape = {"cosine": 0.5 * (1 + math.cos(math.pi * share)), "linear": 1 - share, "constant": 1.0}
    if config.name not in shape:
        raise UserError(f"schedule.name: got {config.name!r}, expected one of {', '.join(shape)}")
    if config.name == "constant":
        decay = config.decay * total if config.decay < 1 else config.decay
        begun = (step - (total - decay)) / decay if decay else 0.0
        return 1.0 - (1 - config.final) * min(1.0, max(0.0, begun))
    return config.final + (1 - config.final) * shape[config.name]


def build_schedule(optimizer: Optimizer, total: int, config: ScheduleConfig) -> LambdaLR:
    """Return the schedule over `total` optimizer steps."""
    return LambdaLR(optimizer, lambda step: learning_rate_factor(step, total, config))
