"""The plan of named stages: what each trains, and one fit that goes through several of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import lightning.pytorch as pl
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from rich.console import Console
from rich.table import Table
from torch import nn

from vargpt_lightning.callbacks.batch_rng import seed_everything_at
from vargpt_lightning.callbacks.graceful_stop import GracefulStop
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.models.language.lora import adapted, merge_adapters
from vargpt_lightning.models.language.quantization import low_bit_layers
from vargpt_lightning.models.vargpt import SUBMODULES
from vargpt_lightning.modules.base import StageModule
from vargpt_lightning.modules.objectives import check_objective, module_of
from vargpt_lightning.modules.trainable import attach_adapters_of, freeze_all_but, freeze_for, set_modes, summary
from vargpt_lightning.recipe.stage import Stage, check_stages
from vargpt_lightning.utils.errors import UserError

MakeModule = Callable[[VARGPT, Stage], pl.LightningModule]


@runtime_checkable
class BeginsStages(Protocol):
    """A callback or data module that is told which stage a fit goes on to."""

    def begin_stage(self, stage: Stage, first_step: int) -> None:
        """Take up a stage whose first optimizer step is `first_step` of the fit."""


@runtime_checkable
class EndsStages(Protocol):
    """A callback that leaves something in the module when a stage of a fit has ended."""

    def end_stage(self, module: nn.Module) -> None: ...


class StageScheduler(pl.Callback):
    """Train exactly what the active stage names, show what that is, and go on to the next stage.

    All parameters outside the stage's submodules get `requires_grad=False` (no gradient, no optimizer state) and their
    modules stay in eval mode (no dropout, fixed statistics), after validation too. Adapters and weights in few bits
    that the stage asks for are made where the model has none yet.

    With one stage, or with `active`, a fit trains that stage: its name is the run's choice, never the checkpoint's.

    With several stages and no `active` one fit trains them all, an epoch each. At the end of a stage its averages and
    adapters become its weights; the next one has its own frozen submodules, objective, optimizer, schedule, clipping,
    accumulation, averages and data. Whatever `BeginsStages` (the data module, `BatchRng`, `EMA`) is told. A fit resumes
    in the middle of any stage, and ends with the weights that `fit_stages` gives. The trainer wants
    `max_epochs=len(stages)` and `reload_dataloaders_every_n_epochs=1`, on one device or with ddp.

    Args:
        stages: the whole plan, or the only stage.
        active: the name of the stage that this fit trains; None takes all.
        console: where the table of submodules is printed; stdout by default.
        seed: of adapters' first weights.
        make: makes the module of each stage; by default that of the stage's objective. A module that is none of ours
            stays through all stages, and gives a fresh optimizer to each.

    Raises:
        UserError: (a ValueError) for a duplicate name, an unknown submodule or an unknown active stage; in `setup`
            when the model has none of the parameters that the stage would train, or the trainer cannot go on from one
            stage to the next; when a checkpoint of another stage is loaded.
    """

    def __init__(
        self,
        stages: Stage | Sequence[Stage],
        active: str | None = None,
        console: Console | None = None,
        *,
        seed: int = 0,
        make: MakeModule | None = None,
    ) -> None:
        stages = [stages] if isinstance(stages, Stage) else list(stages)
        check_stages(stages, SUBMODULES)
        names = [stage.name for stage in stages]
        if active not in (None, *names):
            raise UserError(f"stage {active!r} is not in the plan; there are {', '.join(names)}")
        self.stages = stages
        self.goes_on = active is None and len(stages) > 1
        self.index = 0 if active is None else names.index(active)
        self.first_step = 0
        self.console = console or Console()
        self.seed, self.make = seed, make

    @property
    def stage(self) -> Stage:
        """The active stage."""
        return self.stages[self.index]

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        if self.goes_on:
            self._check(trainer)
            self.index = self.first_step = 0
            self._begin(trainer, pl_module)
        else:
            self._prepare(trainer, model_of(pl_module))

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Go to the checkpoint's stage, before the optimizers are made, and load the weights into what it trains."""
        state = checkpoint["callbacks"].get(self.state_key)
        if not self.goes_on or state is None:
            return
        names = [stage.name for stage in self.stages]
        if state["active"] not in names:
            raise UserError(f"checkpoint is of stage {state['active']!r}; expected one of {', '.join(names)}")
        merge_adapters(model_of(pl_module).language_model)
        self.index, self.first_step = names.index(state["active"]), state.get("first_step", 0)
        module = self._begin(trainer, pl_module)
        module.on_load_checkpoint(checkpoint)
        trainer.strategy.load_model_state_dict(checkpoint, strict=module.strict_loading)
        _end_epoch(checkpoint["loops"]["fit_loop"])

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._show(model_of(pl_module))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go on where a fit resumes after the last step of a stage."""
        if self.goes_on and trainer.current_epoch > self.index:
            self._go_on(trainer, pl_module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Undo what others did to the modes; after a validation Lightning brings back those from before it."""
        set_modes(model_of(pl_module), self.stage.train)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go on to the next stage; Lightning asks for its batches next."""
        if self.goes_on and not trainer.should_stop and self.index + 1 < len(self.stages):
            self._go_on(trainer, pl_module)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Make the last stage's adapters part of its weights, when all hooks that save are done."""
        if stage == "fit" and self.goes_on and not GracefulStop.stopped(trainer):
            merge_adapters(model_of(pl_module).language_model)

    def state_dict(self) -> dict[str, Any]:
        return {"active": self.stage.name, "index": self.index, "first_step": self.first_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict["active"] != self.stage.name:
            raise UserError(
                f"checkpoint is of stage {state_dict['active']!r}, but stage {self.stage.name!r} is being trained; "
                f"expected the checkpoint in the folder of {self.stage.name!r}"
            )

    def _go_on(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, EndsStages):
                callback.end_stage(module)
        merge_adapters(model_of(module).language_model)
        self.index, self.first_step = self.index + 1, trainer.global_step
        made = self._begin(trainer, module)
        trainer.strategy.setup(trainer)  # the optimizer, and what ddp wraps around what is trained
        self._show(model_of(made))

    def _begin(self, trainer: pl.Trainer, module: pl.LightningModule) -> pl.LightningModule:
        """Make of model and trainer what the active stage wants; return its module, which the trainer has then."""
        self._prepare(trainer, model_of(module))
        made: Any = self._module(module)
        if isinstance(made, StageModule):
            made.first_step = self.first_step
        if made is not module:
            made.trainer = trainer
            trainer.strategy.connect(made)
            for callback in trainer.callbacks:  # type: ignore[attr-defined]  # as Lightning does for the first module
                callback.log, callback.log_dict = made.log, made.log_dict
        trainer.accumulate_grad_batches = self.stage.accumulate
        trainer.gradient_clip_val = self.stage.optimizer.clip or None
        for follower in (trainer.datamodule, *trainer.callbacks):  # type: ignore[attr-defined]
            if isinstance(follower, BeginsStages):
                follower.begin_stage(self.stage, self.first_step)
        return made

    def _prepare(self, trainer: pl.Trainer, model: VARGPT) -> None:
        """Give the model what the stage trains, unless it has it, and freeze all else."""
        stage = self.stage
        if stage.lora and not any(adapted(model.language_model)):
            seed_everything_at(self.seed, stage.name)
            attach_adapters_of(model, stage)
        if low_bit_layers(model):
            freeze_all_but(model, stage)
        else:
            freeze_for(model, stage, trainer.strategy.root_device)

    def _module(self, module: pl.LightningModule) -> pl.LightningModule:
        if self.make is not None:
            return self.make(model_of(module), self.stage)
        if not isinstance(module, StageModule):
            return module
        if module.stage == self.stage and isinstance(module, check_objective(self.stage)[0]):
            return module
        if type(module) is not check_objective(module.stage)[0]:
            raise UserError(
                f"stage {self.stage.name!r}: {type(module).__name__} is the module of stage {module.stage.name!r}; "
                "expected StageScheduler(stages, make=...), which makes a module for each stage"
            )
        return module_of(model_of(module), self.stage)

    def _check(self, trainer: pl.Trainer) -> None:
        """Refuse what a fit over several stages cannot do."""
        count, every = len(self.stages), trainer.reload_dataloaders_every_n_epochs  # type: ignore[attr-defined]
        if (trainer.max_epochs, trainer.max_steps, every) != (count, -1, 1):
            raise UserError(
                f"Trainer(max_epochs={trainer.max_epochs}, max_steps={trainer.max_steps}, "
                f"reload_dataloaders_every_n_epochs={every}): a stage is an epoch; expected max_epochs={count}, "
                "max_steps=-1 and reload_dataloaders_every_n_epochs=1"
            )
        if type(trainer.strategy) not in (SingleDeviceStrategy, DDPStrategy):
            raise UserError(
                f"strategy {type(trainer.strategy).__name__} holds parts of weights that a fit over several stages "
                "cannot change; expected one device or ddp, or fit_stages, which shards each stage"
            )
        if packed := next((stage for stage in self.stages if stage.frozen_bits), None):
            raise UserError(
                f"stages.{packed.name}.frozen_bits={packed.frozen_bits}: the stage after it would have no whole "
                "weights; expected fit_stages, which keeps them in files"
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


def model_of(module: pl.LightningModule) -> VARGPT:
    """Return the model of a module; raises TypeError where there is none under `vargpt`."""
    model = getattr(module, "vargpt", None)
    if not isinstance(model, VARGPT):
        raise TypeError(f"{type(module).__name__} has no VARGPT under `vargpt`")
    return model


def _end_epoch(loop: dict[str, Any]) -> None:
    """Count an epoch as done whose last batch is: Lightning would count the next one's batches on from there."""
    epoch, batch = loop["epoch_progress"], loop["epoch_loop.batch_progress"]
    if batch["is_last_batch"] and epoch["current"]["processed"] < epoch["current"]["started"]:
        for each in (epoch["current"], epoch["total"]):
            each["processed"] += 1
        for each in (batch["current"], batch["total"]):
            each["completed"] = each["processed"]
