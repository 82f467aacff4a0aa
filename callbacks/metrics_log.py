"""What modules and callbacks log goes to the stage's table of step, name and value."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from vargpt_lightning.runs.folder import StageFolder


class MetricsLog(Logger):
    """Append logged values to a stage's metrics.csv, at once, so that a killed run keeps all it measured.

    The step of a row is the number of optimizer steps taken; Lightning counts from 0, so one is added. Only rank 0
    writes. Lightning's own `epoch` column is left out, and hyperparameters stand in the run folder already.

    Args:
        stage: the folder of the stage.
    """

    def __init__(self, stage: StageFolder) -> None:
        super().__init__()
        self.stage = stage

    @property
    def name(self) -> str:
        return self.stage.name

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self.stage.path)

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append one row for each metric.

        Raises:
            ValueError: without a step, for a resumed run could not tell what to drop.
        """
        if step is None:
            raise ValueError(f"step=None for {sorted(metrics)}; expected the step that the values belong to")
        self.stage.log(step + 1, {name: value for name, value in metrics.items() if name != "epoch"})

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the configuration stands in the run folder."""


class ResumeMetrics(pl.Callback):
    """Cut the table of every `MetricsLog` back to the step that training starts from.

    A killed run has rows of steps after its last checkpoint; these steps are taken again, and logged again.
    """

    @rank_zero_only
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, MetricsLog) and (logger.stage.path / "metrics.csv").is_file():
                logger.stage.forget_after(trainer.global_step)
