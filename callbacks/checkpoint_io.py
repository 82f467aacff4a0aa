"""Checkpoints that are whole or not there, also when the disk is full or the process is killed."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint

from vargpt_lightning.checkpoints.atomic import unreadable
from vargpt_lightning.checkpoints.dcp.folder import SUFFIX, complete_folders, step_of
from vargpt_lightning.distributed.protocol import Sharding


class LastCheckpoint(Checkpoint):
    """Save one checkpoint, always the same file, every so many seconds.

    Lightning's ModelCheckpoint may save between the batches of one optimizer step, where the accumulated gradients
    would be lost; this one waits for the step. It saves nothing after the last step of a fit: what follows (a
    validation, a sample grid, the stage's weights) would be missing from a fit that resumes there.

    Args:
        path: the file.
        seconds: the shortest pause between two checkpoints; 0 saves after each step.
    """

    def __init__(self, path: str | Path, seconds: float) -> None:
        self.path = Path(path)
        self.seconds = seconds
        self._saved = time.monotonic()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._saved = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        between_batches = (batch_idx + 1) % trainer.accumulate_grad_batches != 0
        if isinstance(sharding := trainer.strategy, Sharding) and not between_batches:
            sharding.finish_checkpoint()
        if between_batches or trainer.should_stop or 0 < trainer.max_steps <= trainer.global_step:
            return
        # the ranks save together or not at all
        if trainer.strategy.broadcast(time.monotonic() - self._saved >= self.seconds):
            trainer.save_checkpoint(self.path, weights_only=False)
            self._saved = time.monotonic()


def last_checkpoint(path: Path) -> Path | None:
    """Return the checkpoint to resume from: the file, or the newest whole folder beside it; None when there is none."""
    folders = complete_folders(path)
    if not path.is_file():
        return folders[-1] if folders else None
    return folders[-1] if folders and step_of(folders[-1]) > steps_taken(path) else path


def remove_leftovers(path: Path) -> None:
    """Delete what processes that are dead have left of checkpoints, and of weights, that they were writing.

    Called by the one process that may write beside `path`; as many bytes as a checkpoint has are kept by each.
    """
    for half in path.parent.glob(".*.tmp"):
        writer = half.name.split(".")[-2]
        if writer.isdecimal() and int(writer) != os.getpid() and _is_alive(int(writer)):
            continue
        if half.is_dir() and not half.is_symlink():
            shutil.rmtree(half, ignore_errors=True)
        else:
            half.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def remove_checkpoints(path: Path) -> None:
    """Delete the file and the folders beside it, when the stage's weights are written."""
    path.unlink(missing_ok=True)
    for folder in path.parent.glob(f"*{path.stem}-*{SUFFIX}*"):
        shutil.rmtree(folder, ignore_errors=True)


def steps_taken(path: Path) -> int:
    """Return the optimizer step that a checkpoint, a file or a folder, was saved after, without reading its weights.

    Raises:
        UserError: it is no checkpoint.
    """
    if path.is_dir():
        return step_of(path)
    try:
        return int(torch.load(path, map_location="meta", weights_only=True, mmap=True)["global_step"])
    except Exception as error:
        raise unreadable(path, error) from error
