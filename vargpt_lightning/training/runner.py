"""The stages of a run one after the other, each a fit of its own that goes on from its last checkpoint."""

from __future__ import annotations

import gc
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch.nn.parallel import DistributedDataParallel

from vargpt_lightning.callbacks.batch_rng import BatchRng, seed_everything_at, seed_of
from vargpt_lightning.callbacks.checkpoint_io import (
    LastCheckpoint,
    last_checkpoint,
    remove_checkpoints,
    remove_leftovers,
    steps_taken,
)
from vargpt_lightning.callbacks.data_counts import DataCounts
from vargpt_lightning.callbacks.ema import EMA
from vargpt_lightning.callbacks.graceful_stop import GracefulStop
from vargpt_lightning.callbacks.metrics_log import MetricsLog, ResumeMetrics
from vargpt_lightning.callbacks.progress import StageProgress
from vargpt_lightning.callbacks.run_record import RunRecord
from vargpt_lightning.callbacks.samples import SampleSheets
from vargpt_lightning.callbacks.stage_scheduler import StageScheduler, attach_adapters_of, freeze_for
from vargpt_lightning.callbacks.throughput import Throughput
from vargpt_lightning.checkpoints.atomic import AtomicCheckpointIO
from vargpt_lightning.checkpoints.deferred import FirstWeights
from vargpt_lightning.checkpoints.hub import VARGPT, Gathered
from vargpt_lightning.checkpoints.init_from import choose, describe, initialise
from vargpt_lightning.checkpoints.stage_weights import load_weights, stage_weights
from vargpt_lightning.checkpoints.tokens import check_tokens
from vargpt_lightning.checkpoints.write import write_safetensors
from vargpt_lightning.data.text.text_tokenizer import FILE_NAME, TextTokenizer
from vargpt_lightning.distributed.fsdp1 import FlatSharding
from vargpt_lightning.distributed.fsdp2 import arrange_blocks
from vargpt_lightning.distributed.group import Processes
from vargpt_lightning.distributed.strategies import SHARDED
from vargpt_lightning.distributed.tensors import whole
from vargpt_lightning.experiment.schema import Experiment
from vargpt_lightning.models.language.lora import merge_adapters
from vargpt_lightning.models.language.quantization import low_bit_layers
from vargpt_lightning.models.vargpt import SUBMODULES
from vargpt_lightning.modules.base import StageModule
from vargpt_lightning.modules.finite import FiniteGuard
from vargpt_lightning.modules.objectives import HEADS
from vargpt_lightning.modules.step_counts import StepBatches
from vargpt_lightning.modules.tokenizer import TokenizerModule
from vargpt_lightning.recipe.stage import Stage
from vargpt_lightning.runs.folder import RunFolder, StageFolder
from vargpt_lightning.training.benchmarks import StageBenchmarkRuns
from vargpt_lightning.training.contents import StageContents
from vargpt_lightning.training.datamodule import StageData
from vargpt_lightning.training.loggers import build_loggers
from vargpt_lightning.training.reuse import StageReuse
from vargpt_lightning.training.samples import requests_for
from vargpt_lightning.training.trainer import make_trainer
from vargpt_lightning.utils.counted import counted, times
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import write_json


class StageRunner:
    """Trains what a run's folder lacks of its experiment.

    Raises:
        UserError: settings of the trainer that Lightning refuses, or tokens that do not fit the model.
    """

    def __init__(self, experiment: Experiment, run: RunFolder, processes: Processes | None = None) -> None:
        self.experiment, self.run = experiment, run
        self.processes = processes or Processes()
        with self._first_goes_first():
            if self.processes.first:  # it alone looks for finished stages, and records them
                self.contents = StageContents(experiment, self.processes.world)
                self.reuse = StageReuse(run, self.contents.hashes, experiment.run.reuse, self.contents.compare)
                self.reuse.take_first([stage.name for stage in experiment.stages])
            self.tokenizer = _text_tokenizer(experiment, run, self.processes.first)
        self.model: VARGPT
        self._has: Path | None = None  # the file whose weights the model in memory has
        self._weights: FirstWeights | None = None  # of a model that has no memory yet
        self.benchmarks = StageBenchmarkRuns(experiment)
        cache = run.path / "cache"
        self.data = StageData(experiment.model, experiment.data, self.tokenizer, cache, experiment.seed)

    def all_stages(self) -> int:
        """Train what is not finished; return 0, or the exit code of a stop by a signal."""
        before: StageFolder | None = None
        for index, stage in enumerate(self.experiment.stages):
            folder = self.run.stage(index + 1, stage.name)
            if self.processes.told(folder.status == "finished" and folder.weights.is_file()):
                self._say(f"stage {stage.name}: finished before, skipped")
                before = folder
                continue
            with self._turn(index, folder) as taken:
                if taken:
                    before = folder
                    continue
                self._take_up(stage, before)
                if self.processes.first:
                    hash_ = self.contents.hash_after(before.record.get("hash") if before else None, index)
                    settings = self.contents.settings(index)
                    folder.update(hash=hash_, settings=settings, processes=self.processes.world)
                    folder.update(status="running", trained=stage.train)
                if code := self._one_stage(stage, folder):
                    return code
                before = folder
        return 0

    @contextmanager
    def _turn(self, index: int, folder: StageFolder) -> Iterator[bool]:
        """Hold the right to train a stage; True when another run has finished it, and it was taken over."""
        first = self.processes.first
        with self.reuse.turn(index) if first else nullcontext():
            yield self.processes.told(first and self.reuse.take(index, folder))

    def _take_up(self, stage: Stage, before: StageFolder | None) -> None:
        """Make the model as the stage before has left it, or as the first one begins; without memory where it will be
        spread over the processes.
        """
        experiment = self.experiment
        if self._sharded(stage) and self.experiment.trainer.strategy == "fsdp2":
            weights = FirstWeights(experiment.model, seed_of(experiment.seed, "weights"))
            self._weights, self.model, self._has = weights, weights.model, None
            if before is not None:
                weights.take(stage_weights(self.model, before.weights))
            elif experiment.init_from:
                chosen, report = choose(self.model, experiment.init_from, experiment.seed)
                weights.take(chosen)
                self._report(report)
        elif before is None or self._has != before.weights:
            self.model = self._model_before(stage, tell=True)

    def _report(self, report: dict[str, Any]) -> None:
        """Tell and keep where the weights come from that the section init_from names."""
        if self.processes.first:
            write_json(self.run.path / "init_from.json", report)
            self._say("\n".join(["first weights:", *(f"  {line}" for line in describe(report))]))

    def _one_stage(self, stage: Stage, folder: StageFolder) -> int:
        seed_everything_at(self.experiment.seed, stage.name)
        began = time.monotonic()
        if self._weights is not None:
            self._weights.fill_parts("vision_tower", "image_tokenizer")  # what the data are prepared with
        with self._first_goes_first():
            self.data.prepare(self.model, stage)
            total = self.data.total_steps(stage, self.processes.world)
            if self.processes.first:
                self._tell_data(stage, folder, total)
        arrange_blocks(self.model, self.experiment.trainer.sharding)
        module = build_module(self.model, stage, total, self.data)
        module.guard = FiniteGuard(self.experiment.trainer.nonfinite, folder.path / "nonfinite.jsonl")
        stop = GracefulStop(folder.checkpoint)
        trainer = self._trainer(stage, folder, total, stop)
        self._prepare_model(stage, trainer.strategy.root_device)
        module.first_weights, self._weights = self._weights, None
        if names := low_bit_layers(module):  # each process has packed its own; ddp would send them every step
            packed = [f"{name}.{key}" for name in names for key in ("packed", "scales")]
            DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, packed)
        if self.processes.first:
            remove_leftovers(folder.checkpoint)
        checkpoint = self.processes.told(last_checkpoint(folder.checkpoint))
        start = 0 if checkpoint is None else steps_taken(checkpoint)
        if checkpoint is not None:
            self._say(f"stage {stage.name}: resumes after step {start} of {total}")
        if self.processes.first:
            prepared = time.monotonic() - began
            folder.update(preparation=folder.record.get("preparation", 0.0) + prepared)
            self.run.add_duration(stage.name, prepared)
        train = self._train_batches(stage, total, start)
        settings = self.experiment.trainer
        validation = self.data.validation_loader(stage, settings.validation_batches) if settings.validate else None
        trainer.fit(module, train, validation, ckpt_path=checkpoint, weights_only=True)
        if stop.exit_code:
            return stop.exit_code
        again = bool(stage.frozen_bits) or isinstance(trainer.strategy, FlatSharding)
        if again:
            self.model = self._whole_again(stage, trainer.strategy)
        if stage.lora:
            merge_adapters(self.model.language_model)
        save_weights(self.model, folder, self._with_tower(stage), self.processes.first)
        self.processes.wait()
        skipped, device = module.guard.skipped, trainer.strategy.root_device
        del trainer, module, train
        self._has = folder.weights if again or not self._sharded(stage) else None
        gc.collect()
        if self.processes.first:
            if self._sharded(stage) and settings.samples:
                self._draw_whole(stage, folder, total, device)
            folder.update(status="finished", steps=total, skipped_steps=skipped)
            if skipped:
                self._say(f"stage {stage.name}: {counted(skipped, 'step')} skipped; see nonfinite.jsonl")
            remove_checkpoints(folder.checkpoint)
        self.processes.wait()
        # a signal after the last step found nothing to interrupt; the run ends with the stage
        ended = max(self.processes.gather(int(stop.signal or 0)))
        return 128 + ended if ended else 0

    def _prepare_model(self, stage: Stage, device: torch.device) -> None:
        """Make of the model what the stage trains; adapters begin alike whatever was drawn before."""
        if self._weights is not None:
            seed = seed_of(self.experiment.seed, stage.name)
            self._weights.change(lambda model: attach_adapters_of(model, stage), seed)
            # what will be in few bits is packed from whole weights
            self._weights.fill_parts(*(part for name in stage.frozen_bits for part in SUBMODULES[name]))
        else:
            seed_everything_at(self.experiment.seed, stage.name)
            attach_adapters_of(self.model, stage)
        freeze_for(self.model, stage, device)

    def _new_model(self) -> VARGPT:
        seed_everything_at(self.experiment.seed, "weights")
        return VARGPT(self.experiment.model)

    def _model_before(self, stage: Stage, tell: bool = False) -> VARGPT:
        """Return a whole model with the weights that a stage begins with."""
        model, place = self._new_model(), self.experiment.stages.index(stage)
        if place:
            load_weights(model, self.run.stage(place, self.experiment.stages[place - 1].name).weights)
        elif self.experiment.init_from:
            report = initialise(model, self.experiment.init_from, self.experiment.seed)
            if tell:
                self._report(report)
        return model

    def _whole_again(self, stage: Stage, strategy: Any) -> VARGPT:
        """Return a model with what the stage has trained beside the frozen weights as they were before it."""
        if isinstance(strategy, FlatSharding):
            trained = {name: value.cpu() for name, value in strategy.trained_weights()}
        else:
            parameters = self.model.named_parameters(remove_duplicate=False)
            frozen = {name for name, parameter in parameters if not parameter.requires_grad}
            state = self.model.state_dict()
            trained = {name: whole(value.detach()).cpu() for name, value in state.items() if name not in frozen}
        model = self._model_before(stage)
        attach_adapters_of(model, stage)
        model.load_state_dict(trained, strict=False)
        return model

    def _train_batches(self, stage: Stage, total: int, start: int) -> StepBatches:
        rank, world = self.processes.rank, self.processes.world
        loader = self.data.train_loader(stage, total, start, rank, world)
        return StepBatches(loader, self.model, stage.accumulate, stage.decoder_alone, world)

    def _sharded(self, stage: Stage) -> bool:
        return self.experiment.trainer.strategy in SHARDED and stage.head != "tokenizer"

    def _say(self, line: str) -> None:
        if self.processes.first:
            print(line, flush=True)

    @contextmanager
    def _first_goes_first(self) -> Iterator[None]:
        """Let the first process do the block before the others, who find what it has left on the disk."""
        if not self.processes.first:
            self.processes.wait()
        yield
        if self.processes.first:
            self.processes.wait()

    def _tell_data(self, stage: Stage, folder: StageFolder, total: int) -> None:
        """Say what the stage is trained on, and how often it comes by, and note it."""
        repeats = self.data.repeats(stage, total, self.processes.world)
        folder.update(data=repeats)
        told = [f"{each['samples']} x {name} ({times(each['times'])})" for name, each in repeats.items()]
        print(f"stage {stage.name}: {counted(total, 'step')}, samples: {', '.join(told)}", flush=True)

    def _with_tower(self, stage: Stage) -> bool:
        """Whether the tower's weights are kept with the model's: a package's are not, unless they were trained."""
        vision = self.experiment.model.vision
        so_far = self.experiment.stages[: self.experiment.stages.index(stage) + 1]
        given = "vision_tower" in self.experiment.init_from.places()
        trained = given or any("vision_tower" in each.train for each in so_far)
        return trained or vision.kind != "efficientnet_lite0" or not vision.pretrained

    def _trainer(self, stage: Stage, folder: StageFolder, total: int, stop: GracefulStop) -> pl.Trainer:
        settings = self.experiment.trainer
        validate = max(1, total // settings.validate) if settings.validate else None
        checkpoint = LastCheckpoint(folder.checkpoint, settings.checkpoint_seconds)
        return make_trainer(
            settings,
            tokenizer=stage.head == "tokenizer",
            max_steps=total,
            max_epochs=-1,
            accumulate_grad_batches=stage.accumulate,
            gradient_clip_val=stage.optimizer.clip or None,
            logger=[MetricsLog(folder), *build_loggers(settings.loggers, self.run, stage.name)],
            log_every_n_steps=min(settings.log_every, total),
            val_check_interval=validate * stage.accumulate if validate else None,
            check_val_every_n_epoch=None,
            limit_val_batches=settings.validation_batches if validate else 0,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            plugins=[] if self._sharded(stage) else [AtomicCheckpointIO()],
            callbacks=[*self._callbacks(stage, folder), stop, checkpoint],
        )

    def _sheets(self, stage: Stage, folder: StageFolder) -> SampleSheets:
        draw, note = requests_for(self.experiment, self.model, self.tokenizer, self.data, stage)
        return SampleSheets(folder, draw, self.experiment.trainer.sample_every, title=stage.name, note=note)

    def _draw_whole(self, stage: Stage, folder: StageFolder, step: int, device: torch.device) -> None:
        """Draw the sheet at the end of a stage whose weights were sharded, with whole ones."""
        if self._has is None:
            del self.model  # the part that this process has kept
            self.model = self._new_model()
            load_weights(self.model, folder.weights)
        self.model.eval().to(device)
        self._sheets(stage, folder).write(step)
        self.model.cpu()

    def _model_flops(self, stage: Stage) -> float | None:
        """Floating-point operations of a sample by the plan, where the experiment says what its data are like."""
        corpora = self.experiment.plan.corpora
        if any(name not in corpora for name, weight in stage.data.items() if weight > 0):
            return None
        from vargpt_lightning.planning.stage_plan import model_flops_per_sample

        return model_flops_per_sample(self.experiment.model, stage, self.experiment.plan)

    def _callbacks(self, stage: Stage, folder: StageFolder) -> list[pl.Callback]:
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
        if settings.samples and not self._sharded(stage):
            callbacks.append(self._sheets(stage, folder))
        callbacks += self.benchmarks.callbacks(stage, folder, self.model, self.tokenizer)
        return [*callbacks, RunRecord(self.run, folder)]


def _text_tokenizer(experiment: Experiment, run: RunFolder, make: bool = True) -> TextTokenizer:
    """The run's text tokenizer; it is made, or made again while no stage has used it."""
    file = run.tokenizer / FILE_NAME
    if not make:
        return TextTokenizer.load(file)
    if not file.is_file() or not any(folder.record.get("hash") for folder in run.stages()):
        temporary = run.tokenizer.with_name(".tokenizer.tmp")
        experiment.data.text_tokenizer().save(temporary)
        shutil.rmtree(run.tokenizer, ignore_errors=True)
        temporary.rename(run.tokenizer)
    tokenizer = TextTokenizer.load(file)
    check_tokens(experiment.model, tokenizer, run.tokenizer)
    return tokenizer


def build_module(model: VARGPT, stage: Stage, total_steps: int, data: StageData) -> StageModule:
    """Return the stage's LightningModule around the model.

    Raises:
        UserError: the stage asks for what the model cannot give.
    """
    if stage.feature_weight and model.config.vision.kind != "efficientnet_lite0":
        raise UserError(
            f"stages.{stage.name}.feature_weight={stage.feature_weight}: features come from EfficientNet, but "
            f"model.vision.kind is {model.config.vision.kind!r}; expected 0"
        )
    module = HEADS[stage.head](model, stage, total_steps)
    module.prepared = data.scaled
    if isinstance(module, TokenizerModule) and module.warmup_steps:
        module.calibration_pictures = data.calibration_pictures()
    return module


def save_weights(model: VARGPT, folder: StageFolder, with_tower: bool = True, write: bool = True) -> None:
    """Write the model's state beside the stage's record, in one step.

    Sharded weights are gathered by all processes, one tensor at a time.

    Args:
        write: whether this is the process that writes.

    Raises:
        UserError: the file cannot be written.
    """
    state = {
        name: Gathered(value)
        for name, value in model.state_dict().items()
        if with_tower or not name.startswith("vision_tower.")
    }
    try:
        write_safetensors(folder.weights, state, rank=0 if write else 1)
    except (UserError, OSError) as error:
        raise UserError(f"{folder.weights}: cannot be written ({error}); the stage's checkpoint is kept") from error
