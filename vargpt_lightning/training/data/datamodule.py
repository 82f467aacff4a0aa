"""Data modules: a stage's batches for Lightning's Trainer, resuming by themselves where a fit resumes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from torch import Tensor

from vargpt_lightning.data.corpora import Corpora
from vargpt_lightning.data.text.text_tokenizer import TextTokenizer
from vargpt_lightning.distributed.group import Processes
from vargpt_lightning.models.core.config import VARGPTConfig
from vargpt_lightning.models.vargpt import VARGPTModel
from vargpt_lightning.modules.base import Batch
from vargpt_lightning.modules.step_counts import StepBatches
from vargpt_lightning.recipe.stage import Stage
from vargpt_lightning.training.data.stage_data import StageData
from vargpt_lightning.training.data.text_tokenizer import data_tokenizer
from vargpt_lightning.utils.errors import UserError


class StageDataModule(pl.LightningDataModule):
    """The batches of one stage of a run, whose data are shared by its stages and were made ready before.

    Args:
        data: the data of all stages.
        stage: the stage that is trained.
        validation_batches: held-out batches of a validation; 0 for none.
    """

    def __init__(self, data: StageData, stage: Stage, validation_batches: int = 0) -> None:
        super().__init__()
        self.data, self.stage, self.validation_batches = data, stage, validation_batches
        self.first_step = 0
        self._steps: dict[tuple[str, int], int] = {}

    @property
    def tokenizer(self) -> TextTokenizer:
        """The text tokenizer."""
        return self.data.tokenizer

    @property
    def cache(self) -> Path:
        """The folder for what is computed of the data once."""
        return self.data.cache

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the stage, with as many processes as the trainer has, or the environment says."""
        world = self.trainer.world_size if self.trainer else int(os.environ.get("WORLD_SIZE", "1"))
        if (known := self._steps.get((self.stage.name, world))) is None:
            known = self._steps[self.stage.name, world] = self.data.order.total_steps(self.stage, world)
        return known

    def train_dataloader(self) -> StepBatches:
        """Return the batches from the step on where the fit stands: those that an unbroken fit would have had."""
        trainer, model = self._trainer(), self._model()
        rank, world = trainer.global_rank, trainer.world_size
        step = trainer.global_step - self.first_step
        loader = self.data.train_loader(self.stage, self.total_steps, step, rank, world)
        return StepBatches(loader, model, self.stage.accumulate, self.stage.decoder_alone, world)

    def val_dataloader(self) -> Any:
        """Return a few batches of held-out records, always the same; an empty list where there are none."""
        loader = self.data.validation_loader(self.stage, self.validation_batches)
        return [] if loader is None else loader

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Scale the pictures of a batch, which come as bytes, on its device."""
        return self.data.scaled(batch)

    def calibration_pictures(self) -> Tensor:
        """Return training pictures to lay a codebook over, (B, 3, H, W) in [-1, 1]."""
        return self.data.calibration_pictures()

    def state_dict(self) -> dict[str, Any]:
        """Return which stage's batches these are; where they resume follows from the trainer's step."""
        return {"stage": self.stage.name, "seed": self.data.seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuse a checkpoint of other batches.

        Raises:
            UserError: it is of another stage, or of another order of the records.
        """
        for key, value in self.state_dict().items():
            if state_dict.get(key, value) != value:
                raise UserError(f"checkpoint: {key} is {state_dict[key]!r}, but the data module's is {value!r}")

    def _trainer(self) -> pl.Trainer:
        if self.trainer is None:
            raise UserError("the data module has no trainer yet; expected trainer.fit(module, datamodule=...)")
        return self.trainer

    def _model(self) -> VARGPTModel:
        module = self._trainer().lightning_module
        model = getattr(module, "vargpt", None)
        if not isinstance(model, VARGPTModel):
            raise UserError(f"{type(module).__name__} has no VARGPT under `vargpt`, which the data module prepares for")
        return model


class VARGPTDataModule(StageDataModule):
    """A stage's batches of corpora, everything made ready when a fit begins.

    What frozen networks give for each picture (features of the vision tower, visual tokens) is computed once and kept.
    With several stages it has the batches of one after the other, as a `StageScheduler` goes on.

    Args:
        data: where the data come from, such as `Packed` or `OpenMoji`.
        stage: the stage that is trained, or all that one fit trains.
        model: the model's configuration.
        cache: folder for the visual tokens of drawn pictures.
        seed: of the order of the records.
        validation_batches: held-out batches of a validation; 0 for none.

    Raises:
        UserError: the stage's mixture names a corpus that there is not.
    """

    def __init__(
        self,
        data: Corpora,
        stage: Stage | list[Stage],
        model: VARGPTConfig,
        cache: str | Path = "cache",
        seed: int = 0,
        validation_batches: int = 8,
    ) -> None:
        whole = StageData(model, data, data_tokenizer(data, model), Path(cache), seed)
        self.stages = [stage] if isinstance(stage, Stage) else list(stage)
        super().__init__(whole, self.stages[0], validation_batches)
        self._ready: Stage | None = None

    def setup(self, stage: str) -> None:
        """Compute what the stage's frozen networks give for every picture; the first process does it."""
        if stage == "fit" and len(self.stages) == 1:
            self._prepare()

    def begin_stage(self, stage: Stage, first_step: int) -> None:
        """Give another stage's batches from here on, beginning with the fit's step `first_step`."""
        self.stage, self.first_step = stage, first_step

    def train_dataloader(self) -> StepBatches:
        """Return the batches of the active stage from where the fit stands."""
        self._prepare()  # with the weights that the stage before has left
        return super().train_dataloader()

    def val_dataloader(self) -> Any:
        """Return a few batches of held-out records, always the same; an empty list where there are none."""
        self._prepare()
        return super().val_dataloader()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuse a checkpoint of other batches; of several stages the scheduler says which one resumes."""
        same = len(self.stages) == 1
        super().load_state_dict(
            state_dict if same else {key: state_dict[key] for key in ("seed",) if key in state_dict}
        )

    def _prepare(self) -> None:
        if self._ready is not self.stage:
            trainer = self._trainer()
            with Processes(trainer.global_rank, trainer.world_size).first_goes_first():
                self.data.prepare(self._model(), self.stage)
            self._ready = self.stage
