"""The callbacks of a stage."""

from __future__ import annotations

from dataclasses import dataclass

import lightning.pytorch as pl

from vargpt_lightning.callbacks.batch_rng import BatchRng
from vargpt_lightning.callbacks.data_counts import DataCounts
from vargpt_lightning.callbacks.ema import EMA
from vargpt_lightning.callbacks.metrics_log import ResumeMetrics
from vargpt_lightning.callbacks.progress import StageProgress
from vargpt_lightning.callbacks.run_record import RunRecord
from vargpt_lightning.callbacks.samples import SampleGrids
from vargpt_lightning.callbacks.stage_scheduler import StageScheduler
from vargpt_lightning.callbacks.throughput import Throughput
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.data.text.text_tokenizer import TextTokenizer
from vargpt_lightning.experiment.schema import Experiment
from vargpt_lightning.recipe.stage import Stage
from vargpt_lightning.runs.folder import RunFolder, StageFolder
from vargpt_lightning.training.benchmarks import StageBenchmarkRuns
from vargpt_lightning.training.data.samples import requests_for
from vargpt_lightning.training.data.stage_data import StageData
from vargpt_lightning.training.own_callbacks import build_callbacks, check_callbacks, watch_of
from vargpt_lightning.training.trainer import is_sharded


@dataclass
class StageCallbacks:
    """What watches, records and steers the stages of a run.

    Args:
        benchmarks: those that are asked at the ends of stages.

    Raises:
        UserError: a callback of the section `trainer` cannot be made; told before anything is trained.
    """

    experiment: Experiment
    run: RunFolder
    tokenizer: TextTokenizer
    data: StageData
    benchmarks: StageBenchmarkRuns

    def __post_init__(self) -> None:
        check_callbacks(self.experiment.trainer.callbacks)

    def of(self, stage: Stage, folder: StageFolder, model: VARGPT) -> list[pl.Callback]:
        """Return a stage's callbacks in the order in which Lightning calls them; what stops and saves comes after."""
        settings = self.experiment.trainer
        callbacks: list[pl.Callback] = [StageScheduler(self.experiment.stages, stage.name)]
        if stage.ema is not None:
            callbacks.append(EMA(stage.ema))
        callbacks += [
            BatchRng(self.experiment.seed, stage.name),
            ResumeMetrics(),
            Throughput(flops_per_sample=self._model_flops(stage)),
            StageProgress(stage.name),
            DataCounts(folder),
        ]
        callbacks += watch_of(stage, self.data, folder)
        if settings.samples and not is_sharded(settings, stage):
            callbacks.append(self.sheets(stage, folder, model))
        callbacks += self.benchmarks.callbacks(stage, folder, model, self.tokenizer)
        return [*callbacks, RunRecord(self.run, folder), *build_callbacks(settings.callbacks)]

    def sheets(self, stage: Stage, folder: StageFolder, model: VARGPT) -> SampleGrids:
        """Return the callback that draws sample grids; written by hand where the stage's weights were sharded."""
        draw, note = requests_for(self.experiment, model, self.tokenizer, self.data, stage)
        return SampleGrids(folder, draw, self.experiment.trainer.sample_every, title=stage.name, note=note)

    def _model_flops(self, stage: Stage) -> float | None:
        """Floating-point operations of a sample by the plan, where the experiment says what its data are like."""
        corpora = self.experiment.plan.corpora
        if any(name not in corpora for name, weight in stage.data.items() if weight > 0):
            return None
        from vargpt_lightning.planning.stage_plan import model_flops_per_sample

        return model_flops_per_sample(self.experiment.model, stage, self.experiment.plan)
