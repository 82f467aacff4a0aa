"""The plan of named stages: what each trains, and the freezing of all else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from rich.console import Console
from rich.table import Table
from torch import nn

from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.distributed.tensors import whole_shape
from vargpt_lightning.models.language.lora import attach_adapters, freeze_beside_adapters
from vargpt_lightning.models.language.quantization import low_bit_layers, pack_frozen
from vargpt_lightning.models.vargpt import SUBMODULES
from vargpt_lightning.recipe.stage import Stage, check_stages
from vargpt_lightning.utils.errors import UserError


class StageScheduler(pl.Callback):
    """Train exactly what the active stage names, and show what that is.

    The active stage is the run's choice, never the checkpoint's: it must be known before the optimizers are made, so
    freezing happens in `setup`. All parameters outside the stage's submodules get `requires_grad=False` (no gradient,
    no optimizer state) and their modules stay in eval mode (no dropout, fixed statistics), after validation too.

    Args:
        stages: the whole plan, or the only stage.
        active: the name of the stage that this fit trains; None takes the only one.
        console: where the table of submodules is printed; stdout by default.

    Raises:
        UserError: (a ValueError) for a duplicate name, an unknown submodule or an unknown active stage; in `setup`
            when the model has none of the parameters that the stage would train; when a checkpoint of another stage
            is loaded.
    """

    def __init__(
        self, stages: Stage | Sequence[Stage], active: str | None = None, console: Console | None = None
    ) -> None:
        stages = [stages] if isinstance(stages, Stage) else list(stages)
        check_stages(stages, SUBMODULES)
        names = [stage.name for stage in stages]
        if active is None and len(names) == 1:
            active = names[0]
        if active not in names:
            raise UserError(f"stage {active!r} is not in the plan; there are {', '.join(names)}")
        self.stages = stages
        self.index = names.index(active)
        self.console = console or Console()

    @property
    def stage(self) -> Stage:
        """The active stage."""
        return self.stages[self.index]

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":
            freeze_all_but(_model_of(pl_module), self.stage)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._show(_model_of(pl_module))

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Undo what others did to the modes; after a validation Lightning brings back those from before it."""
        set_modes(_model_of(pl_module), self.stage.train)

    def state_dict(self) -> dict[str, Any]:
        return {"active": self.stage.name, "index": self.index}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict["active"] != self.stage.name:
            raise UserError(
                f"checkpoint is of stage {state_dict['active']!r}, but stage {self.stage.name!r} is being trained; "
                f"expected the checkpoint in the folder of {self.stage.name!r}"
            )

    @rank_zero_only
    def _show(self, model: VARGPT) -> None:
        table = Table(title=f"stage {self.index + 1} of {len(self.stages)}: {self.stage.name}", title_justify="left")
        table.add_column("submodule")
        table.add_column("parameters", justify="right")
        table.add_column("")
        for name, parameters, trained in summary(model):
            table.add_row(name, f"{parameters:,}", "[bold green]trained" if trained else "[dim]frozen")
        self.console.print(table)


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


def _model_of(module: pl.LightningModule) -> VARGPT:
    model = getattr(module, "vargpt", None)
    if not isinstance(model, VARGPT):
        raise TypeError(f"{type(module).__name__} has no VARGPT under `vargpt`")
    return model
