"""What a stage trains of a model: adapters, frozen submodules, frozen weights in few bits."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.distributed.tensors import whole_shape
from vargpt_lightning.models.language.lora import attach_adapters, freeze_beside_adapters
from vargpt_lightning.models.language.quantization import low_bit_layers, pack_frozen
from vargpt_lightning.models.vargpt import SUBMODULES
from vargpt_lightning.recipe.stage import Stage
from vargpt_lightning.utils.errors import UserError


def summary(model: VARGPT) -> list[tuple[str, int, bool]]:
    """Return name, parameters and whether it is trained, for each submodule that there is.

    Weights that are kept in few bits count as the parameters that they stand for.
    """
    rows = []
    for name, module in model.named_children():
        parameters = list(module.parameters())
        if parameters:
            count = sum(whole_shape(parameter).numel() for parameter in parameters)
            count += sum(layer.in_features * layer.out_features for layer in low_bit_layers(module).values())
            rows.append((name, count, any(parameter.requires_grad for parameter in parameters)))
    return rows


def prepare_model(model: VARGPT, stage: Stage, device: torch.device | None = None) -> None:
    """Change a model into what a stage trains: adapters, what is frozen, frozen weights in few bits.

    Args:
        device: where weights in few bits are packed and stay; None leaves them where they are.

    Raises:
        UserError: a name or a setting that does not fit this model, or a package that is not installed.
    """
    attach_adapters_of(model, stage)
    freeze_for(model, stage, device)


def freeze_for(model: VARGPT, stage: Stage, device: torch.device | None = None) -> None:
    """Do what `prepare_model` does, to a model that has its adapters."""
    freeze_all_but(model, stage)
    try:
        pack_frozen(model, stage.frozen_bits, device)
    except UserError as error:
        raise UserError(f"stages.{stage.name}.{error}") from error


def attach_adapters_of(model: VARGPT, stage: Stage) -> None:
    """Put the adapters into a model that a stage trains, if it trains any."""
    if stage.lora:
        lora = stage.lora
        attach_adapters(model.language_model, lora.rank, lora.alpha, lora.dropout, lora.targets)


def freeze_all_but(model: VARGPT, stage: Stage) -> None:
    """Set `requires_grad` and the modes of all submodules as the stage says.

    Raises:
        UserError: an unknown name, or nothing left to train.
    """
    trained = set(_modules(model, stage.train))
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        parameter.grad = None
    for module in trained:
        module.requires_grad_(True)
    if stage.lora:
        freeze_beside_adapters(model.language_model, stage.lora.also)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        there = ", ".join(name for name, _, _ in summary(model))
        raise UserError(f"stages.{stage.name}.train={stage.train} trains nothing in this model, which has {there}")
    set_modes(model, stage.train)


def set_modes(model: VARGPT, train: Iterable[str]) -> None:
    """Put the named submodules into training mode and everything else into evaluation mode."""
    model.eval()
    model.training = True
    for module in _modules(model, train):
        module.train()


def _modules(model: VARGPT, names: Iterable[str]) -> list[nn.Module]:
    found = []
    for name in names:
        if name not in SUBMODULES:
            raise UserError(f"submodule {name!r} is unknown; there are {', '.join(SUBMODULES)}")
        found += [getattr(model, part) for part in SUBMODULES[name] if getattr(model, part) is not None]
    return found
