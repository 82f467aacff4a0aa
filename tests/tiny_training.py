"""A fit of one stage on tiny data that keeps what was logged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import Logger

from tests.tiny import tiny_config
from vargpt_lightning.callbacks.batch_rng import BatchRng
from vargpt_lightning.callbacks.stage_scheduler import StageScheduler
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.data.corpora import Packed
from vargpt_lightning.data.text.text_tokenizer import TextTokenizer
from vargpt_lightning.modules.base import StageModule
from vargpt_lightning.modules.vargpt_module import VARGPTModule
from vargpt_lightning.recipe.stage import Stage
from vargpt_lightning.training.data.datamodule import StageDataModule
from vargpt_lightning.training.data.stage_data import StageData


class Rows(Logger):
    """Keeps (step, values) of each row."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int, dict[str, float]]] = []

    name = version = ""  # type: ignore[assignment]

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        assert step is not None
        self.rows.append((step + 1, dict(metrics)))

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None: ...


@dataclass
class Fit:
    """What a fit leaves."""

    module: StageModule
    trainer: pl.Trainer
    rows: list[tuple[int, dict[str, float]]]

    def values(self, name: str) -> dict[int, float]:
        """A metric's values by step."""
        return {step: row[name] for step, row in self.rows if name in row}


def tiny_model(seed: int = 0) -> VARGPT:
    torch.manual_seed(seed)
    return VARGPT(tiny_config())


def tiny_stage_data(arguments: dict[str, Any], cache: Path, **changes: Any) -> StageData:
    """The data of the tiny corpora for stages; `arguments` as `write_corpora` returned them."""
    corpora = Packed(**{"cache_features": True, **arguments, **changes})
    return StageData(tiny_config(), corpora, TextTokenizer.load(arguments["tokenizer"]), cache, seed=0)


def fit_stage(
    data: StageData,
    model: VARGPT,
    stage: Stage,
    total: int | None = None,
    callbacks: Sequence[pl.Callback] = (),
    checkpoint: Path | None = None,
    **settings: Any,
) -> Fit:
    """Train a model as a stage says, for `total` steps; `settings` are the trainer's."""
    total = total or stage.steps or 1
    data.prepare(model, stage)
    module = VARGPTModule(model, stage, total)
    logger = Rows()
    defaults: dict[str, Any] = {"log_every_n_steps": 1, "limit_val_batches": 0, "num_sanity_val_steps": 0}
    defaults |= {"max_steps": total, "max_epochs": -1, "accumulate_grad_batches": stage.accumulate}
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=logger,
        enable_checkpointing=any(isinstance(callback, pl.callbacks.Checkpoint) for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[StageScheduler([stage], stage.name), BatchRng(0, stage.name), *callbacks],
        **(defaults | settings),
    )
    batches = StageDataModule(data, stage, 1 if settings.get("limit_val_batches") else 0)
    trainer.fit(module, datamodule=batches, ckpt_path=checkpoint, weights_only=True)
    return Fit(module, trainer, logger.rows)
