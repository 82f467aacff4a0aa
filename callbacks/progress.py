"""One line that says where the training stands: a live one in a terminal, one every few seconds in a file.

rich draws the bar; Lightning's RichProgressBar counts batches of an epoch, not steps of a stage, and says nothing in a
log file.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from vargpt_lightning.recipe.stage import Stage
from vargpt_lightning.utils.counted import duration_text

LIVE_PAUSE = 0.25  # seconds; reading a value from a GPU waits for it


class StageProgress(ProgressBar):
    """Show the stage, the step, the losses and the time left.

    In a terminal a bar is redrawn in place; otherwise (a pipe, a log file) a plain line is printed every `every`
    seconds and at the end. Shown are the values that the module logs with `prog_bar=True`; when there are none, the
    first four of `train/...` that are not of single scales. Other ranks than 0 are silent.

    Args:
        stage: the name at the start of the line.
        every: seconds between two plain lines.
        console: where to print; stdout by default.

    Raises:
        ValueError: for a pause that is not positive.
    """

    def __init__(self, stage: str = "training", every: float = 10.0, console: Console | None = None) -> None:
        super().__init__()
        if every <= 0:
            raise ValueError(f"every={every}; expected a number of seconds above 0")
        self.stage = stage
        self.every = every
        self.console = console or Console()
        self._enabled = True
        self._live: Progress | None = None
        self._task = TaskID(0)
        self._total: int | None = None
        self._first_step = 0
        self._began = self._printed = 0.0

    def begin_stage(self, stage: Stage, first_step: int) -> None:
        """Show another stage's name."""
        self.stage = stage.name

    def enable(self) -> None:
        self._enabled = True

    def disable(self) -> None:
        self._enabled = False

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print above the live line."""
        if self._enabled:
            self.console.print(*args, **kwargs)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        steps = trainer.estimated_stepping_batches
        self._total = int(steps) if 0 <= steps < float("inf") else None
        self._first_step = trainer.global_step
        self._began = self._printed = time.monotonic()
        if self._enabled and self.console.is_terminal:
            self._live = Progress(
                TextColumn("[bold]{task.fields[stage]}"),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[line]}"),
                console=self.console,
                refresh_per_second=4,
            )
            self._task = self._live.add_task("", total=self._total, stage=self.stage, line="")
            self._live.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self._enabled:
            return
        pause = self.every if self._live is None else LIVE_PAUSE
        # the last step is shown once, at the end, with the time that all took
        last = self._live is None and self._total is not None and trainer.global_step >= self._total
        if not last and time.monotonic() - self._printed >= pause:
            self._show(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._enabled:
            self._show(trainer)
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _show(self, trainer: pl.Trainer) -> None:
        self._printed = time.monotonic()
        line = self._line(trainer)
        if self._live is not None:
            self._live.update(self._task, completed=trainer.global_step, stage=self.stage, line=line)
        else:
            self.console.print(f"[{self.stage}] {line}", markup=False, highlight=False, soft_wrap=True)

    def _line(self, trainer: pl.Trainer) -> str:
        """Step of total, the values, and the time: what is left, or what it took."""
        step, seconds = trainer.global_step, time.monotonic() - self._began
        parts = [
            f"step {step}/{self._total}" if self._total else f"step {step}",
            values_text(shown_values(trainer)),
        ]
        taken = step - self._first_step
        if self._total and taken > 0 and step < self._total:
            parts.append(f"{duration_text(seconds / taken * (self._total - step))} left")
        else:
            parts.append(f"took {duration_text(seconds)}")
        return "  ".join(part for part in parts if part)


def shown_values(trainer: pl.Trainer) -> dict[str, Any]:
    """Return what the module wants in the bar, else its first four training values but those of single scales."""
    if wanted := trainer.progress_bar_metrics:
        return dict(wanted)
    names = [name for name in trainer.callback_metrics if name.startswith("train/") and "_scale_" not in name]
    return {name: trainer.callback_metrics[name] for name in names[:4]}


def values_text(values: Mapping[str, Any]) -> str:
    """Return `name value` pairs, four digits each; names lose the part before a slash."""
    return "  ".join(f"{name.rpartition('/')[2]} {float(value):.4g}" for name, value in values.items())
