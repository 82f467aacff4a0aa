"""Ending at a batch, with a checkpoint, when the process is asked to end."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from vargpt_lightning.callbacks.checkpoint_io import last_checkpoint
from vargpt_lightning.distributed.protocol import Sharding

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class GracefulStop(pl.Callback):
    """On SIGTERM or SIGINT finish the batch, save a checkpoint and stop; the same command resumes.

    The signal's handler sets a flag and does nothing else: Lightning's own handler talks to the other ranks from within
    the signal, which hangs with DDP. At the end of each optimizer step the ranks agree on the flag, save together and
    set `trainer.should_stop`. A second SIGINT stops at once with KeyboardInterrupt. The handlers are in place only
    while batches are trained.

    No validation follows, and checkpoint callbacks save no more: the unfinished epoch would be taken for a finished
    one. Hooks that end a stage (`on_train_epoch_end`, `on_train_end`) run all the same; ask `stopped(trainer)` in them.

    Args:
        path: where the checkpoint goes; by default `last.ckpt` in the folder of the trainer's checkpoint callback, and
            none is written when there is no such callback.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = None if path is None else Path(path)
        self.signal: signal.Signals | None = None
        self.saved: Path | None = None
        self._done = False
        self._previous: dict[signal.Signals, Any] = {}

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as shells have it; 0 when none came."""
        return 128 + (self.signal or signal.SIGTERM) if self._done else 0

    @staticmethod
    def stopped(trainer: pl.Trainer) -> bool:
        """True when one of the trainer's callbacks has stopped the fit for a signal."""
        return any(isinstance(callback, GracefulStop) and callback._done for callback in trainer.callbacks)  # type: ignore[attr-defined]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.signal, self.saved, self._done = None, None, False
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            self._previous = {number: signal.signal(number, self._note) for number in SIGNALS}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0 or trainer.is_last_batch
        if self._done or not stepped:  # between steps the accumulated gradients would be lost
            return
        if trainer.strategy.reduce_boolean_decision(self.signal is not None, all=False):
            self._stop(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._restore()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal is not None:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)

    def _stop(self, trainer: pl.Trainer) -> None:
        self._done = True
        self.saved = self._target(trainer)
        if self.saved is not None:
            trainer.save_checkpoint(self.saved, weights_only=False)
            if isinstance(sharding := trainer.strategy, Sharding):
                sharding.finish_checkpoint(now=True)  # it may be written while training goes on, which ends here
            self.saved = last_checkpoint(self.saved) or self.saved
        loop = trainer.fit_loop
        loop.min_epochs, loop.epoch_loop.min_steps = 0, 0  # else the stop waits for them
        loop.epoch_loop._skip_next_val = True  # Lightning validates before it stops, and no public switch forbids it
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint):
                callback._last_global_step_saved = trainer.global_step  # nothing newer to save, as far as it knows
        trainer.should_stop = True
        name = self.signal.name if self.signal else "another rank's signal"
        rank_zero_info(f"{name}: stopped after step {trainer.global_step}, saved {self.saved or 'no checkpoint'}")

    def _target(self, trainer: pl.Trainer) -> Path | None:
        if self.path is not None:
            return self.path
        folder = getattr(trainer.checkpoint_callback, "dirpath", None)
        return None if folder is None else Path(folder) / "last.ckpt"

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
