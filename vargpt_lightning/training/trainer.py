"""Lightning's Trainer as an experiment's section `trainer` says, and the processes that it trains with."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch.distributed as dist
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy

from vargpt_lightning.distributed.group import Processes
from vargpt_lightning.distributed.strategies import build_strategy, join_processes, trainer_precision
from vargpt_lightning.experiment.schema import TrainerConfig
from vargpt_lightning.utils.errors import UserError


def make_trainer(settings: TrainerConfig, tokenizer: bool = False, **more: Any) -> pl.Trainer:
    """Return a trainer with what the settings and Lightning have in common.

    Raises:
        UserError: Lightning refuses a value.
    """
    shared = {key: getattr(settings, key) for key in ("accelerator", "devices", "num_nodes", "strategy", "precision")}
    strategy = build_strategy(settings.strategy, settings.sharding, settings.precision, tokenizer=tokenizer)
    changed: dict[str, Any] = {"strategy": strategy}
    if not tokenizer:
        changed["precision"] = trainer_precision(settings.strategy, settings.precision)
    if settings.strategy == "single":
        changed["devices"] = 1 if settings.devices == "auto" else settings.devices
        several = len(settings.devices) != 1 if isinstance(settings.devices, list) else int(changed["devices"]) != 1
        if several:
            raise UserError(f"trainer.devices={settings.devices!r}: expected 1 with strategy single; ddp takes several")
    if SLURMEnvironment.detect() and not TorchElasticEnvironment.detect():
        # requeueing is the job script's: Lightning's own would save a checkpoint of another kind
        more["plugins"] = [*more.get("plugins", []), SLURMEnvironment(auto_requeue=False)]
    arguments = {**shared, **changed, "enable_model_summary": False, "logger": False, **more}
    try:
        trainer = pl.Trainer(**arguments)
        if settings.strategy == "auto" and isinstance(trainer.strategy, DDPStrategy):
            arguments["strategy"] = build_strategy("ddp", settings.sharding, settings.precision)
            trainer = pl.Trainer(**arguments)
        return trainer
    except (MisconfigurationException, ValueError, TypeError) as error:
        given = ", ".join(f"{key}={value!r}" for key, value in shared.items())
        raise UserError(f"trainer: Lightning refuses {given}: {str(error).strip()}") from error


def join(settings: TrainerConfig) -> Processes:
    """Join the other processes of a run, where there are several."""
    return Processes(*join_processes(make_trainer(settings, enable_checkpointing=False)))


def leave(processes: Processes) -> None:
    """Leave the group of processes, when all have come so far."""
    processes.wait()
    if dist.is_initialized():
        dist.destroy_process_group()
