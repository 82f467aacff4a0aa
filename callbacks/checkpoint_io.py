"""Checkpoints that are whole or not there, also when the disk is full or the process is killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from vargpt_lightning.distributed_checkpoint import SUFFIX, complete_folders, load_as_file, step_of
from vargpt_lightning.errors import UserError


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write beside the old checkpoint and rename over it; Lightning's own writes through another file system's folder.

    Folders that sharded processes have left are read too.

    Raises:
        UserError: the disk is full, or the file cannot be written: the checkpoint before it is still there; a file
            that is no checkpoint.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        target = Path(path)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except (OSError, RuntimeError) as error:
            # torch reports a full disk as a RuntimeError of its zip writer
            kept = "the checkpoint before it is kept" if target.exists() else "there is none before it"
            raise UserError(
                f"{target}: the checkpoint cannot be written ({_refused(error)}); {kept}: make room, and run the same "
                "command again"
            ) from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        if Path(path).is_dir():
            return load_as_file(Path(path))
        try:
            loaded: dict[str, Any] = torch.load(path, map_location=map_location or "cpu", weights_only=True)
            return loaded
        except Exception as error:  # torch raises many kinds for a file that is no checkpoint
            raise _unreadable(path, error) from error


class LastCheckpoint(Checkpoint):
    """Save one checkpoint, always the same file, every so many seconds.

    Lightning's ModelCheckpoint may save between the batches of one optimizer step, where the accumulated gradients
    would be lost; this one waits for the step. It saves nothing after the last step of a fit: what follows (a
    validation, a sample sheet, the stage's weights) would be missing from a fit that is taken up there.

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
        finish = getattr(trainer.strategy, "finish_checkpoint", None)
        if finish is not None and not between_batches:
            finish()
        if between_batches or trainer.should_stop or 0 < trainer.max_steps <= trainer.global_step:
            return
        # the ranks save together or not at all
        if trainer.strategy.broadcast(time.monotonic() - self._saved >= self.seconds):
            trainer.save_checkpoint(self.path, weights_only=False)
            self._saved = time.monotonic()


def last_checkpoint(path: Path) -> Path | None:
    """Return the checkpoint to go on from: the file, or the newest whole folder beside it; None when there is none."""
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
        raise _unreadable(path, error) from error


def _unreadable(path: Any, error: Exception) -> UserError:
    why = str(error).split(". ")[0] or type(error).__name__
    return UserError(f"{path}: is broken, or not a checkpoint ({why}); delete it to start its stage again")


def _refused(error: BaseException) -> str:
    """What the operating system said, which torch's zip writer hides behind an error of its own."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError):
            return cause.strerror or str(cause)
        cause = cause.__cause__ or cause.__context__
    return str(error).splitlines()[0]
