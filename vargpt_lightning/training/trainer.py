"""Lightning's Trainer as an experiment's section `trainer` says, and the processes that it trains with."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch.distributed as dist
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy

from vargpt_lightning.callbacks.metrics_log import MetricsLog
from vargpt_lightning.checkpoints.atomic import AtomicCheckpointIO
from vargpt_lightning.distributed.group import Processes
from vargpt_lightning.distributed.strategies import SHARDED, build_strategy, join_processes, trainer_precision
from vargpt_lightning.experiment.schema import Experiment, TrainerConfig
from vargpt_lightning.recipe.stage import Stage
from vargpt_lightning.runs.folder import RunFolder, StageFolder
from vargpt_lightning.training.loggers import build_loggers
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


def is_sharded(settings: TrainerConfig, stage: Stage) -> bool:
    """Whether the stage's weights are spread over the processes."""
    return settings.strategy in SHARDED and stage.head != "tokenizer"


def stage_trainer(
    experiment: Experiment, run: RunFolder, folder: StageFolder, stage: Stage, total: int, callbacks: list[pl.Callback]
) -> pl.Trainer:
    """Return the trainer of one stage of a run, for its `total` optimizer steps; raises as `make_trainer` does."""
    settings = experiment.trainer
    validate = max(1, total // settings.validate) if settings.validate else None
    return make_trainer(
        settings,
        tokenizer=stage.head == "tokenizer",
        max_steps=total,
        max_epochs=-1,
        accumulate_grad_batches=stage.accumulate,
        gradient_clip_val=stage.optimizer.clip or None,
        logger=[MetricsLog(folder), *build_loggers(settings.loggers, run, stage.name)],
        log_every_n_steps=min(settings.log_every, total),
        val_check_interval=validate * stage.accumulate if validate else None,
        check_val_every_n_epoch=None,
        limit_val_batches=settings.validation_batches if validate else 0,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        plugins=[] if is_sharded(settings, stage) else [AtomicCheckpointIO()],
        callbacks=callbacks,
    )


def join(settings: TrainerConfig) -> Processes:
    """Join the other processes of a run, where there are several."""
    return Processes(*join_processes(make_trainer(settings, enable_checkpointing=False)))


def leave(processes: Processes) -> None:
    """Leave the group of processes, when all have come so far."""
    processes.wait()
    if dist.is_initialized():
        dist.destroy_process_group()
