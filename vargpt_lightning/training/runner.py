"""The stages of a run one after the other, each a fit of its own that resumes from its last checkpoint."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from vargpt_lightning.callbacks import checkpoint_io
from vargpt_lightning.callbacks.batch_rng import seed_everything_at
from vargpt_lightning.callbacks.graceful_stop import GracefulStop
from vargpt_lightning.distributed.ddp import keep_packed_apart
from vargpt_lightning.distributed.fsdp2 import arrange_blocks
from vargpt_lightning.distributed.group import Processes
from vargpt_lightning.modules.finite import NonFiniteGuard
from vargpt_lightning.modules.objectives import check_objective, module_of
from vargpt_lightning.runs.folder import RunFolder, StageFolder
from vargpt_lightning.training.benchmarks import StageBenchmarkRuns
from vargpt_lightning.training.callbacks import StageCallbacks
from vargpt_lightning.training.contents import StageContents
from vargpt_lightning.training.data.datamodule import StageDataModule
from vargpt_lightning.training.data.rewards import check_reward, give_rewards
from vargpt_lightning.training.data.stage_data import StageData
from vargpt_lightning.training.data.text_tokenizer import check_reference_tokenizer, run_tokenizer
from vargpt_lightning.training.reuse import StageReuse
from vargpt_lightning.training.trainer import is_sharded, stage_trainer
from vargpt_lightning.training.weights import StageWeights
from vargpt_lightning.utils.counted import counted, times

if TYPE_CHECKING:
    from vargpt_lightning.experiment.schema import Experiment
    from vargpt_lightning.recipe.stage import Stage


class StageRunner:
    """Trains what a run's folder lacks of its experiment.

    Raises:
        UserError: settings of the trainer that Lightning refuses, or tokens that do not fit the model.
    """

    def __init__(self, experiment: Experiment, run: RunFolder, processes: Processes | None = None) -> None:
        self.experiment, self.run = experiment, run
        for stage in experiment.stages:
            check_objective(stage)  # one that cannot be used is told before anything is trained
            check_reward(stage)
        self.processes = processes or Processes()
        with self.processes.first_goes_first():
            if self.processes.first:  # it alone looks for finished stages, and records them
                self.contents = StageContents(experiment, self.processes.world)
                self.reuse = StageReuse(run, self.contents.hashes, experiment.run.reuse, self.contents)
                self.reuse.take_first([stage.name for stage in experiment.stages])
            tokenizer = run_tokenizer(experiment, run, self.processes.first)
        check_reference_tokenizer(experiment, tokenizer)
        self.weights = StageWeights(experiment, run, self.processes)
        benchmarks = StageBenchmarkRuns(experiment)
        self.data = StageData(experiment.model, experiment.data, tokenizer, run.path / "cache", experiment.seed)
        self.callbacks = StageCallbacks(experiment, run, tokenizer, self.data, benchmarks)

    def all_stages(self) -> int:
        """Train what is not finished; return 0, or the exit code of a stop by a signal."""
        before: StageFolder | None = None
        for index, stage in enumerate(self.experiment.stages):
            folder = self.run.stage(index + 1, stage.name)
            if self.processes.broadcast(folder.status == "finished" and folder.weights.is_file()):
                self.processes.say(f"stage {stage.name}: finished before, skipped")
                before = folder
                continue
            with self._turn(index, folder) as taken:
                if not taken:
                    self.weights.load_before(stage, before)
                    self._begin(index, folder, before)
                    if code := self._one_stage(stage, folder):
                        return code
                before = folder
        return 0

    @contextmanager
    def _turn(self, index: int, folder: StageFolder) -> Iterator[bool]:
        """Hold the right to train a stage; True when another run has finished it, and its weights are reused."""
        first = self.processes.first
        with self.reuse.turn(index) if first else nullcontext():
            yield self.processes.broadcast(first and self.reuse.take(index, folder))

    def _begin(self, index: int, folder: StageFolder, before: StageFolder | None) -> None:
        """Record that a stage is trained, and all that it depends on."""
        if self.processes.first:
            hash_ = self.contents.hash_after(before.record.get("hash") if before else None, index)
            folder.update(hash=hash_, settings=self.contents.settings(index), processes=self.processes.world)
            folder.update(packages=self.contents.packages(index))
            folder.update(status="running", trained=self.experiment.stages[index].train)

    def _one_stage(self, stage: Stage, folder: StageFolder) -> int:
        settings, began = self.experiment.trainer, time.monotonic()
        seed_everything_at(self.experiment.seed, stage.name)
        total = self._prepare_data(stage, folder)
        model = self.weights.model
        arrange_blocks(model, settings.sharding)
        guard = NonFiniteGuard(settings.nonfinite, folder.path / "nonfinite.jsonl")
        module = module_of(model, stage, total, guard=guard, first_weights=self.weights.deferred)
        give_rewards(module)
        stop = GracefulStop(folder.checkpoint)
        last = checkpoint_io.LastCheckpoint(folder.checkpoint, settings.checkpoint_seconds)
        callbacks = [*self.callbacks.of(stage, folder, model), stop, last]
        trainer = stage_trainer(self.experiment, self.run, folder, stage, total, callbacks)
        device = trainer.strategy.root_device
        self.weights.make_ready(stage, device)
        keep_packed_apart(module)
        if self.processes.first:
            checkpoint_io.remove_leftovers(folder.checkpoint)
        checkpoint = self.processes.broadcast(checkpoint_io.last_checkpoint(folder.checkpoint))
        start = 0 if checkpoint is None else checkpoint_io.steps_taken(checkpoint)
        if checkpoint is not None:
            self.processes.say(f"stage {stage.name}: resumes after step {start} of {total}")
        if self.processes.first:
            prepared = time.monotonic() - began
            folder.update(preparation=folder.record.get("preparation", 0.0) + prepared)
            self.run.add_duration(stage.name, prepared)
        data = StageDataModule(self.data, stage, settings.validation_batches if settings.validate else 0)
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        if stop.exit_code:
            return stop.exit_code
        self.weights.save(stage, folder, trainer.strategy)
        steps = trainer.global_step  # fewer than all where a callback has stopped the fit
        del trainer, module, data, model, callbacks
        gc.collect()
        if self.processes.first:
            if is_sharded(settings, stage) and settings.samples:  # drawn with whole weights
                whole = self.weights.load_whole(folder)
                whole.use_scales(stage.scales)
                self.callbacks.sheets(stage, folder, whole.eval().to(device)).write(total)
                whole.cpu()
            folder.update(status="finished", steps=steps, skipped_steps=guard.skipped)
            if guard.skipped:
                self.processes.say(f"stage {stage.name}: {counted(guard.skipped, 'step')} skipped; see nonfinite.jsonl")
            checkpoint_io.remove_checkpoints(folder.checkpoint)
        self.processes.wait()
        # a signal after the last step found nothing to interrupt; the run ends with the stage
        ended = max(self.processes.gather(int(stop.signal or 0)))
        return 128 + ended if ended else 0

    def _prepare_data(self, stage: Stage, folder: StageFolder) -> int:
        """Make a stage's data ready, say how often they come by, and return the optimizer steps of the stage."""
        self.weights.fill_encoders()
        with self.processes.first_goes_first():
            self.data.prepare(self.weights.model, stage)
            total = self.data.order.total_steps(stage, self.processes.world)
            if self.processes.first:
                repeats = self.data.order.repeats(stage, total, self.processes.world)
                folder.update(data=repeats)
                told = [f"{each['samples']} x {name} ({times(each['times'])})" for name, each in repeats.items()]
                self.processes.say(f"stage {stage.name}: {counted(total, 'step')}, samples: {', '.join(told)}")
        return total
