"""What a stage and its run took, and how they ended, written to the run folder while they go on."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl
import psutil
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from vargpt_lightning.callbacks.graceful_stop import GracefulStop
from vargpt_lightning.runs.folder import RunFolder, StageFolder

INTERRUPTIONS = (KeyboardInterrupt, SystemExit, GeneratorExit, SIGTERMException)


class RunRecord(pl.Callback):
    """Keep steps, seconds and peak memory of a stage in stage.json, and its duration and the peak in run.json.

    Written when training starts, every few seconds, and when it ends or breaks, by rank 0 alone; seconds add up over
    the attempts of a run. The status is "running", and "interrupted" or "failed" when training ends too early.
    "finished" is for the caller to write, once the stage's weights are on the disk.

    Args:
        run: the run's folder.
        stage: the stage's folder.
        every: seconds between two writings.
    """

    def __init__(self, run: RunFolder, stage: StageFolder, every: float = 30.0) -> None:
        self.run = run
        self.stage = stage
        self.every = every
        self._since = time.monotonic()

    @rank_zero_only
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._since = time.monotonic()
        steps = trainer.estimated_stepping_batches
        total = int(steps) if 0 <= steps < float("inf") else None
        self._write(trainer, status="running", total_steps=total)

    @rank_zero_only
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if time.monotonic() - self._since >= self.every:
            self._write(trainer)

    @rank_zero_only
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._write(trainer, **({"status": "interrupted"} if GracefulStop.stopped(trainer) else {}))

    @rank_zero_only
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        with contextlib.suppress(OSError, ValueError):  # a full disk must not hide the error that is being handled
            self._write(trainer, status="interrupted" if isinstance(exception, INTERRUPTIONS) else "failed")

    def _write(self, trainer: pl.Trainer, **fields: Any) -> None:
        now = time.monotonic()
        seconds, self._since = now - self._since, now
        before = self.stage.record
        self.stage.update(
            **fields,
            steps=trainer.global_step,
            seconds=before.get("seconds", 0.0) + seconds,
            peak_memory=max(before.get("peak_memory", 0), peak_memory()),
            **_gpu_peak(before),
        )
        self.run.add_duration(self.stage.name, seconds)
        self.run.update(peak_memory=max(self.run.record.get("peak_memory", 0), peak_memory()))


@contextlib.contextmanager
def run_status(run: RunFolder) -> Iterator[None]:
    """End the run as what the block ends with: finished, interrupted or failed.

    A block that has ended the run itself, as after a graceful stop, keeps its word.
    """
    try:
        yield
    except BaseException as error:
        with contextlib.suppress(OSError, ValueError):
            run.end("interrupted" if isinstance(error, INTERRUPTIONS) else "failed")
        raise
    if run.record.get("status") == "running":
        run.end("finished")


def peak_memory() -> int:
    """The largest resident size that this process has had, in bytes; the present one where the system tells no more."""
    try:
        import resource
    except ImportError:
        return int(psutil.Process().memory_info().rss)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _gpu_peak(before: dict[str, Any]) -> dict[str, int]:
    if not torch.cuda.is_available():
        return {}
    return {"peak_gpu_memory": max(before.get("peak_gpu_memory", 0), torch.cuda.max_memory_allocated())}
