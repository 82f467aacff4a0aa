"""Checkpoint files that are whole or not there, also when the disk is full or the process is killed."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from vargpt_lightning.checkpoints.dcp.folder import load_as_file
from vargpt_lightning.utils.errors import UserError


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
            raise unreadable(path, error) from error


def unreadable(path: Any, error: Exception) -> UserError:
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
