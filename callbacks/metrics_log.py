"""A table of everything that was measured: one row for each step, name and value."""

from __future__ import annotations

import csv
import os
from argparse import Namespace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

HEADER = ["step", "name", "value"]


class MetricsLog(Logger):
    """Append what modules and callbacks log to a CSV file with the columns step, name, value.

    Steps count from 0, as Lightning's do: what the first optimizer step logged has step 0. A row is on the disk when
    `log_metrics` returns, so a killed run keeps all it measured. Only rank 0 writes. Hyperparameters are not kept here: the
    run folder has the whole configuration.

    Args:
        path: the CSV file; it and its folders are made when the first row comes.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = Path(path)

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self.path.parent)

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append one row for each metric; Lightning's own `epoch` column is left out.

        Raises:
            ValueError: without a step, for the table could not be resumed.
        """
        if step is None:
            raise ValueError(f"step=None for {sorted(metrics)}; expected the step that the values belong to")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = not self.path.exists() or self.path.stat().st_size == 0
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            if fresh:
                writer.writerow(HEADER)
            writer.writerows([step, name, repr(float(value))] for name, value in metrics.items() if name != "epoch")

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the configuration stands in the run folder."""

    @rank_zero_only
    def keep_before(self, step: int) -> int:
        """Drop the rows of `step` and later, and half-written ones; return how many were dropped."""
        if not self.path.exists():
            return 0
        text = self.path.read_text(encoding="utf-8")
        rows = list(csv.reader(text.splitlines()))[1:]
        whole = rows if text.endswith("\n") else rows[:-1]
        kept = [row for row in whole if _valid(row) and int(row[0]) < step]
        if len(kept) == len(rows):
            return 0
        temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}.tmp")
        with temporary.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([HEADER, *kept])
        os.replace(temporary, self.path)
        return len(rows) - len(kept)


class ResumeMetrics(pl.Callback):
    """Cut every `MetricsLog` back to the step that training starts from.

    A run that was killed has rows of steps after its last checkpoint; these steps are taken again, and logged again.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, MetricsLog):
                logger.keep_before(trainer.global_step)


def _valid(row: list[str]) -> bool:
    """True for a row with a step, a name and a number."""
    if len(row) != len(HEADER) or not row[0].isdecimal():
        return False
    try:
        float(row[2])
    except ValueError:
        return False
    return True
