"""Sheets of drawings while a model is trained: the same requests each time."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Sequence
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from PIL import Image

from vargpt_lightning.callbacks.ema import averaged_weights
from vargpt_lightning.callbacks.graceful_stop import GracefulStop
from vargpt_lightning.evaluation.base.sheets import Cell, contact_sheet
from vargpt_lightning.runs.folder import StageFolder
from vargpt_lightning.utils.files import write_bytes

Draw = Callable[[], Sequence[tuple[Image.Image, str]]]
LOG = logging.getLogger(__name__)


class SampleGrids(pl.Callback):
    """Write a PNG grid of pictures with their prompts at the end of a stage, and every `every` steps if above 0.

    Args:
        folder: the stage's folder; sheets go to `samples/step-000123.png`.
        draw: returns pictures with captions; it is called with the model in evaluation mode, without gradients, with
            the averaged weights if there are any. The random streams of training are left as they were.
        every: steps between two sheets; 0 for the one at the end alone.
        title: what stands above the pictures.
        note: what stands below them, such as whom to credit.
    """

    def __init__(self, folder: StageFolder, draw: Draw, every: int = 0, title: str = "", note: str = "") -> None:
        self.folder = folder
        self.draw = draw
        self.every = every
        self.title = title
        self.note = note
        self._last_step = -1

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step, between_batches = trainer.global_step, (batch_idx + 1) % trainer.accumulate_grad_batches != 0
        if self.every > 0 and not between_batches and step % self.every == 0:
            self._write(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not GracefulStop.stopped(trainer) and trainer.global_step != self._last_step:
            self._write(trainer, pl_module)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The same for a fit resumed after its last step, which trains nothing and has no `on_train_end`."""
        if self._last_step < 0:
            self.on_train_end(trainer, pl_module)

    @rank_zero_only
    def _write(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._last_step = trainer.global_step
        modes = {module: module.training for module in pl_module.modules()}
        pl_module.eval()
        try:
            with averaged_weights(trainer, pl_module):
                self.write(trainer.global_step, trainer.loggers)
        finally:
            for module, mode in modes.items():
                module.training = mode

    def write(self, step: int, loggers: Sequence[Logger] = ()) -> None:
        """Draw the sheet of a step, with the model as it is, write it, tell loggers of it; expects evaluation mode."""
        with torch.random.fork_rng(), torch.no_grad():
            cells = [Cell(picture, caption) for picture, caption in self.draw()]
        if not cells:
            LOG.info("%s: nothing was drawn at step %d", self.folder.name, step)
            return
        sheet = contact_sheet(cells, title=f"{self.title} · step {step}", note=self.note)
        content = io.BytesIO()
        sheet.save(content, "PNG")
        write_bytes(self.folder.path / "samples" / f"step-{step:06d}.png", content.getvalue())
        for logger in loggers:
            send_picture(logger, f"samples/{self.folder.name}", sheet, step)


def send_picture(logger: Logger, name: str, picture: Image.Image, step: int) -> bool:
    """Give a picture to a logger; False when it takes none.

    Known are the ways of Weights & Biases (the logger's `log_image`), TensorBoard (the writer's `add_image`) and MLflow
    (the client's `log_image`).
    """
    if callable(getattr(logger, "log_image", None)):
        logger.log_image(name, [picture], step=step)  # type: ignore[attr-defined]
        return True
    experiment: Any = getattr(logger, "experiment", None)
    if callable(getattr(experiment, "add_image", None)):
        experiment.add_image(name, np.asarray(picture.convert("RGB")), step, dataformats="HWC")
        return True
    if callable(getattr(experiment, "log_image", None)) and hasattr(logger, "run_id"):
        experiment.log_image(logger.run_id, picture, artifact_file=f"{name}-{step:06d}.png")
        return True
    return False
