"""Random numbers that depend on where training stands, not on how it got there."""

from __future__ import annotations

import hashlib
import random
from typing import Any, Protocol, runtime_checkable

import lightning.pytorch as pl
import numpy as np
import torch

from vargpt_lightning.recipe.stage import Stage


@runtime_checkable
class SeedsRows(Protocol):
    """A module with draws that all ranks make alike."""

    def seed_rows(self, seed: int) -> None: ...


class BatchRng(pl.Callback):
    """Seed Python, NumPy and torch before every training batch, so that a resumed run equals an unbroken one.

    The seed is a hash of (seed, stage, optimizer steps taken, batch of the step, rank): dropout, drop path and dropped
    conditions of a batch are the same whether the run came here in one go or was killed, and whatever ran between two
    batches (validation, sample grids) drew from the generators. The order of the data is no concern of this callback.
    A module that `SeedsRows` is told the first rank's seed, for draws that all ranks make alike.

    Args:
        seed: the run's seed.
        stage: the name of what is trained; a fit over several stages tells it.
    """

    def __init__(self, seed: int, stage: str = "") -> None:
        self.seed = seed
        self.stage = stage
        self.first_step = 0

    def begin_stage(self, stage: Stage, first_step: int) -> None:
        """Seed from here on as a fit of this stage alone would."""
        self.stage, self.first_step = stage.name, first_step

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        part = batch_idx % trainer.accumulate_grad_batches  # a resumed epoch may count its batches from 0 again
        place = (self.seed, self.stage, trainer.global_step - self.first_step, part)
        seed_everything_at(*place, trainer.global_rank)
        if isinstance(pl_module, SeedsRows):
            pl_module.seed_rows(seed_of(*place, 0))


def seed_everything_at(*place: int | str) -> int:
    """Seed the generators of Python, NumPy and torch (every device) from a place such as (seed, stage, step).

    Returns:
        the 63-bit seed that torch got.
    """
    seed = seed_of(*place)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    return seed


def seed_of(*place: int | str) -> int:
    """Return the 63-bit seed of a place."""
    digest = hashlib.sha256(repr(place).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
