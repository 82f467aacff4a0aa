"""Exponential moving averages of the weights that are being trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from vargpt_lightning.distributed.tensors import local, named_parameters
from vargpt_lightning.recipe.stage import Stage


class EMA(pl.Callback):
    """Keep an exponential moving average of the trained weights and use it wherever the model is looked at.

    After each optimizer step: average <- d average + (1 - d) weight, in fp32, with d = min(decay, (1 + n) / (10 + n))
    after n updates, so that short stages forget their start. The averages stand in for the weights during validation,
    inside `averaged_weights` (sample grids) and after training, when a stage's weights are written. Checkpoints hold
    the raw weights, with the averages in this callback's state: a resumed run is exact.

    Lightning's WeightAveraging is no base for this: it copies the whole module, frozen towers included, calls
    `configure_model` outside of the strategy, so that nothing is sharded, keeps one set of parameters while stages
    change it, and swaps for validation alone. Here only parameters with `requires_grad` take memory. When a switch of
    stages freezes a parameter, its average becomes its value; one that starts to be trained starts its average. Place
    this callback after the stage scheduler.

    Averages of sharded parameters are sharded as they are; each process averages its parts, and a checkpoint's folder
    holds them beside the weights.

    In a fit over several stages each has averages of its own, with the stage's `ema` as decay; one without has none.

    Args:
        decay: d of a long run, in [0, 1).
        warmup: False uses `decay` from the first step on.

    Raises:
        ValueError: for a decay outside [0, 1).
    """

    def __init__(self, decay: float = 0.999, warmup: bool = True) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"decay={decay}; expected 0 <= decay < 1")
        self.decay = decay
        self.warmup = warmup
        self.updates = 0
        self.averages: dict[str, Tensor] = {}
        self._raw: dict[str, Tensor] = {}
        self._last_step = 0
        self._idle = False  # in a stage without averages

    def begin_stage(self, stage: Stage, first_step: int) -> None:
        """Begin anew, as the stage's `ema` says."""
        self.averages, self._raw, self.updates = {}, {}, 0
        self._idle = stage.ema is None
        self.decay = self.decay if stage.ema is None else stage.ema

    def end_stage(self, module: nn.Module) -> None:
        """Leave the averages in the module: they are the result of the stage."""
        self.swap_in(module)

    def current_decay(self) -> float:
        """The decay of the next update."""
        return min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.warmup else self.decay

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._raw = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._last_step = trainer.global_step

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.follow(pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step > self._last_step:  # with accumulation most batches end without a step
            self._last_step = trainer.global_step
            self.update(pl_module)

    @torch.no_grad()
    def follow(self, module: nn.Module) -> None:
        """Bring the set of averages in line with what is trained now (see the class)."""
        if self._idle:
            return
        trained = _trained(module)
        for name, parameter in named_parameters(module):
            if name in self.averages and name not in trained:
                parameter.copy_(self.averages.pop(name))
        for name, parameter in trained.items():
            if name not in self.averages:
                self.averages[name] = parameter.detach().float().clone()

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move the averages towards the weights, once."""
        if self._idle:
            return
        self.follow(module)
        decay = self.current_decay()
        for name, parameter in _trained(module).items():
            average = self.averages[name] = self.averages[name].to(parameter.device)
            part = local(average)
            part.lerp_(local(parameter.detach()).to(part.dtype), 1.0 - decay)
        self.updates += 1

    @torch.no_grad()
    def swap_in(self, module: nn.Module) -> None:
        """Put the averages into the module and the raw weights aside; nothing happens when they are there already."""
        if self._raw:
            return
        for name, parameter in named_parameters(module):
            if name in self.averages:
                self._raw[name] = parameter.detach().clone()
                parameter.copy_(self.averages[name])

    @torch.no_grad()
    def swap_out(self, module: nn.Module) -> None:
        """Put the raw weights back; nothing happens when they are there already."""
        for name, parameter in named_parameters(module):
            if name in self._raw:
                parameter.copy_(self._raw.pop(name))

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.swap_in(pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.swap_out(pl_module)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.swap_out(pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the averages in the module: they are the result of the training."""
        self.swap_in(pl_module)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The same for a fit resumed after its last step, which trains nothing and has no `on_train_end`."""
        self.swap_in(pl_module)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Write the raw weights, also while the averages are in the module."""
        weights = checkpoint["state_dict"]
        first = {parameter: name for name, parameter in named_parameters(pl_module)}
        for name, parameter in named_parameters(pl_module, every=True):  # a tied tensor has several names
            raw = self._raw.get(first[parameter])
            if raw is not None and name in weights:
                weights[name] = raw

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "averages": dict(self.averages)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.updates = state_dict["updates"]
        self.averages = dict(state_dict["averages"])


@contextmanager
def averaged_weights(trainer: pl.Trainer, module: nn.Module) -> Iterator[None]:
    """Use the averages of the trainer's EMA callback inside the block; nothing changes when it has none."""
    callbacks = [callback for callback in trainer.callbacks if isinstance(callback, EMA)]  # type: ignore[attr-defined]
    owner = next((callback for callback in callbacks if not callback._raw), None)
    if owner is not None:
        owner.swap_in(module)
    try:
        yield
    finally:
        if owner is not None:
            owner.swap_out(module)


def _trained(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in named_parameters(module) if parameter.requires_grad}
