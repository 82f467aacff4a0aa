"""`vargpt fit`: an experiment's stages one after the other, each of them resumable; then evaluation and report."""

from __future__ import annotations

import dataclasses
import gc
import json
import shutil
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vargpt_lightning.errors import UserError
from vargpt_lightning.results import RunFolder, StageFolder

if TYPE_CHECKING:  # the sub-command's help must not wait for torch
    from vargpt_lightning.commands.experiment import Experiment
    from vargpt_lightning.commands.stage_data import StageData
    from vargpt_lightning.models.vargpt import VARGPT
    from vargpt_lightning.modules.base import StageModule
    from vargpt_lightning.modules.stage import Stage


def main(argv: list[str]) -> int:
    """Train, evaluate, report; return the exit code: 0 finished, 128 + signal when stopped by one."""
    from vargpt_lightning.commands.experiment import build_parser, load_experiment

    if not argv:
        build_parser().print_help()
        return 2
    return run_experiment(load_experiment(argv), ["vargpt", "fit", *argv])


def run_experiment(experiment: Experiment, command: list[str]) -> int:
    """Run an experiment in its folder, going on where an earlier attempt stopped; return the exit code."""
    from vargpt_lightning.callbacks.run_record import run_status

    hashes = _hashes(experiment)
    path = Path(experiment.run.root) / str(experiment.run.name)
    if path.is_dir() and (path / "run.json").is_file():
        _check_finished(RunFolder(path), experiment, hashes)
    run = RunFolder.start(
        path,
        command=command,
        config=experiment.files[-1] if experiment.files else None,
        config_text=experiment.resolved,
        seed=experiment.seed,
    )
    run.update(stage_count=len(experiment.stages))
    print(f"run: {run.path}", flush=True)
    with run_status(run):
        code = _Fit(experiment, run, hashes).all_stages()
        if code:
            run.end("interrupted")
            return code
        if experiment.evaluation.enabled:
            from vargpt_lightning.commands.final_evaluation import evaluate_run

            evaluate_run(experiment, run)
    print(f"finished: {run.path}" + (f"\nreport: {run.report}" if run.report.exists() else ""), flush=True)
    return 0


def _hashes(experiment: Experiment) -> list[str]:
    from vargpt_lightning.modules.stage import stage_hashes

    return stage_hashes(experiment.stages, experiment.stage_basis())


def _check_finished(run: RunFolder, experiment: Experiment, hashes: list[str]) -> None:
    """Set aside what `--from` trains anew; refuse a run whose finished or begun stages had other settings."""
    first = [stage.name for stage in experiment.stages].index(experiment.start) if experiment.start else None
    begun = {folder.index: folder for folder in run.stages() if folder.record.get("hash")}
    for index, folder in begun.items():
        if first is not None and index > first:
            continue
        stage = experiment.stages[index - 1] if index <= len(experiment.stages) else None
        if stage is None or stage.name != folder.name or folder.record["hash"] != hashes[index - 1]:
            _refuse(run, folder, experiment, index)
    if first is not None:
        _set_aside(run, first)


def _refuse(run: RunFolder, folder: StageFolder, experiment: Experiment, index: int) -> None:
    there = [stage.name for stage in experiment.stages]
    changed = "the stage is no longer at this place of the plan"
    if index <= len(there) and there[index - 1] == folder.name:
        before = folder.record.get("settings", {})
        now = settings_of(experiment, experiment.stages[index - 1])
        changed = "; ".join(_differences(before, now)) or "an earlier stage differs"
    name = there[min(index, len(there)) - 1]
    raise UserError(
        f"{run.path}: stage {folder.name!r} was {folder.status} with other settings ({changed}); run it with "
        f"--from {name} to train it and what follows anew, or with --run.name NAME to keep both"
    )


def _differences(before: Any, now: Any, key: str = "") -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        lines = []
        for name in dict.fromkeys([*before, *now]):
            if before.get(name) != now.get(name):
                lines += _differences(before.get(name), now.get(name), f"{key}.{name}".lstrip("."))
        return lines
    return [f"{key}: {before!r}, now {now!r}"]


def settings_of(experiment: Experiment, stage: Stage) -> dict[str, Any]:
    """Return what a stage's result depends on, as plain JSON values."""
    values = {**experiment.stage_basis(), "stage": dataclasses.asdict(stage)}
    plain: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return plain


def _set_aside(run: RunFolder, first: int) -> None:
    """Move the stages from index `first` (0 based) on, and what was measured after them, into a folder of their own."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    moved = [folder.path for folder in run.stages() if folder.index > first]
    for path in [*moved, run.evaluation, run.report]:
        if path.exists():
            target = run.path / "replaced" / stamp / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(path, target)


class _Fit:
    """The loop over the stages."""

    def __init__(self, experiment: Experiment, run: RunFolder, hashes: list[str]) -> None:
        from vargpt_lightning.callbacks.batch_rng import seed_everything_at
        from vargpt_lightning.commands.stage_data import StageData
        from vargpt_lightning.models.vargpt import VARGPT

        self.experiment, self.run, self.hashes = experiment, run, hashes
        self.tokenizer = self._text_tokenizer()
        seed_everything_at(experiment.seed, "weights")
        self.model: VARGPT = VARGPT(experiment.model)
        self.data: StageData = StageData(
            experiment.model, experiment.data, self.tokenizer, run.path / "cache", experiment.seed
        )

    def _text_tokenizer(self) -> Any:
        from vargpt_lightning.commands.loading import _check_tokens
        from vargpt_lightning.data.text_tokenizer import FILE_NAME, TextTokenizer

        file = self.run.tokenizer / FILE_NAME
        if not file.is_file():
            temporary = self.run.tokenizer.with_name(".tokenizer.tmp")
            self.experiment.data.text_tokenizer().save(temporary)
            shutil.rmtree(self.run.tokenizer, ignore_errors=True)
            temporary.rename(self.run.tokenizer)
        tokenizer = TextTokenizer.load(file)
        _check_tokens(self.experiment.model, tokenizer, self.run)
        return tokenizer

    def all_stages(self) -> int:
        """Train what is not finished; return 0, or the exit code of a stop by a signal."""
        last_finished: StageFolder | None = None
        for index, stage in enumerate(self.experiment.stages):
            folder = self.run.stage(index + 1, stage.name)
            if folder.status == "finished" and folder.weights.is_file():
                print(f"stage {stage.name}: finished before, skipped", flush=True)
                last_finished = folder
                continue
            if last_finished is not None:
                load_weights(self.model, last_finished)
            settings = settings_of(self.experiment, stage)
            folder.update(hash=self.hashes[index], settings=settings, status="running", trained=stage.train)
            code = self._one_stage(stage, folder)
            if code:
                return code
            last_finished = None  # the model in memory has its weights
        if last_finished is not None:
            load_weights(self.model, last_finished)
        return 0

    def _one_stage(self, stage: Stage, folder: StageFolder) -> int:
        from vargpt_lightning.callbacks.batch_rng import seed_everything_at
        from vargpt_lightning.callbacks.graceful_stop import GracefulStop

        seed_everything_at(self.experiment.seed, stage.name)
        began = time.monotonic()
        self.data.prepare(self.model, stage)
        total = stage.total_steps(self.data.sizes)
        module = build_module(self.model, stage, total, self.data)
        trainer = self._trainer(stage, folder, total)
        checkpoint = folder.checkpoint if folder.checkpoint.is_file() else None
        start = _step_of(checkpoint)
        prepared = time.monotonic() - began
        folder.update(preparation=folder.record.get("preparation", 0.0) + prepared)
        self.run.add_duration(stage.name, prepared)
        rank, world = trainer.global_rank, trainer.world_size
        loaders = {"train_dataloaders": self.data.train_loader(stage, total, start, rank, world)}
        if self.experiment.trainer.validate:
            loaders["val_dataloaders"] = self.data.validation_loader(stage, self.experiment.trainer.validation_batches)
        trainer.fit(module, **loaders, ckpt_path=checkpoint, weights_only=True)
        stops = [callback for callback in trainer.callbacks if isinstance(callback, GracefulStop)]
        if stops and stops[0].exit_code:
            return stops[0].exit_code
        save_weights(self.model, folder)
        folder.update(status="finished", steps=total)
        folder.checkpoint.unlink(missing_ok=True)
        del trainer, module
        gc.collect()
        return 0

    def _trainer(self, stage: Stage, folder: StageFolder, total: int) -> Any:
        import lightning.pytorch as pl
        from lightning.pytorch.callbacks import ModelCheckpoint

        from vargpt_lightning.callbacks.checkpoint_io import AtomicCheckpointIO
        from vargpt_lightning.callbacks.metrics_log import MetricsLog

        settings = self.experiment.trainer
        validate = max(1, total // settings.validate) if settings.validate else None
        checkpoints = ModelCheckpoint(
            dirpath=folder.path,
            filename="last",
            train_time_interval=timedelta(seconds=settings.checkpoint_seconds),
            save_top_k=1,
            enable_version_counter=False,
        )
        return pl.Trainer(
            accelerator=settings.accelerator,
            devices=settings.devices,
            num_nodes=settings.num_nodes,
            strategy=settings.strategy,
            precision=settings.precision,  # type: ignore[arg-type]
            max_steps=total,
            max_epochs=-1,
            accumulate_grad_batches=stage.accumulate,
            gradient_clip_val=stage.optimizer.clip or None,
            logger=MetricsLog(folder),
            log_every_n_steps=min(settings.log_every, total),
            val_check_interval=validate * stage.accumulate if validate else None,
            check_val_every_n_epoch=None,
            limit_val_batches=settings.validation_batches if validate else 0,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            enable_model_summary=False,
            plugins=[AtomicCheckpointIO()],
            callbacks=[*self._callbacks(stage, folder), checkpoints],
        )

    def _callbacks(self, stage: Stage, folder: StageFolder) -> list[Any]:
        from vargpt_lightning.callbacks.batch_rng import BatchRng
        from vargpt_lightning.callbacks.ema import EMA
        from vargpt_lightning.callbacks.graceful_stop import GracefulStop
        from vargpt_lightning.callbacks.metrics_log import ResumeMetrics
        from vargpt_lightning.callbacks.progress import StageProgress
        from vargpt_lightning.callbacks.run_record import RunRecord
        from vargpt_lightning.callbacks.samples import SampleSheets
        from vargpt_lightning.callbacks.stage_scheduler import StageScheduler
        from vargpt_lightning.callbacks.throughput import Throughput
        from vargpt_lightning.commands.sample_requests import requests_for

        settings = self.experiment.trainer
        callbacks: list[Any] = [
            StageScheduler(self.experiment.stages, stage.name),
            BatchRng(self.experiment.seed, stage.name),
            ResumeMetrics(),
            Throughput(),
            StageProgress(stage.name),
        ]
        if stage.ema is not None:
            callbacks.insert(1, EMA(stage.ema))
        if settings.samples:
            draw, note = requests_for(self.experiment, self.model, self.tokenizer, self.data, stage)
            callbacks.append(SampleSheets(folder, draw, settings.sample_every, title=stage.name, note=note))
        return [*callbacks, RunRecord(self.run, folder), GracefulStop(folder.checkpoint)]


def build_module(model: VARGPT, stage: Stage, total_steps: int, data: StageData) -> StageModule:
    """Return the stage's LightningModule around the model."""
    from vargpt_lightning.modules.generation import GenerationModule
    from vargpt_lightning.modules.tokenizer import TokenizerModule
    from vargpt_lightning.modules.understanding import UnderstandingModule
    from vargpt_lightning.modules.unified import UnifiedModule

    heads: dict[str, type[StageModule]] = {
        "unified": UnifiedModule,
        "understanding": UnderstandingModule,
        "generation": GenerationModule,
        "tokenizer": TokenizerModule,
    }
    if stage.head not in heads:
        raise UserError(f"stages.{stage.name}.head: {stage.head!r}; expected one of {', '.join(heads)}")
    module = heads[stage.head](model, stage, total_steps)
    if isinstance(module, TokenizerModule) and module.warmup_steps:
        module.calibration_pictures = data.calibration_pictures()
    return module


def save_weights(model: VARGPT, folder: StageFolder) -> None:
    """Write the whole model's state beside the stage's record, without what comes with a package, in one step."""
    import os

    from safetensors.torch import save_file

    own = model.config.vision.kind == "efficientnet_lite0"
    state: dict[str, Any] = {}
    places: set[int] = set()
    for name, value in model.state_dict().items():
        if not (own and name.startswith("vision_tower.")):
            plain = value.detach().cpu().contiguous()
            # safetensors refuses tied weights: the second name gets a copy.
            state[name] = plain.clone() if plain.data_ptr() in places else plain
            places.add(plain.data_ptr())
    temporary = folder.path / f".model.{os.getpid()}.tmp"
    try:
        save_file(state, temporary)
        os.replace(temporary, folder.weights)
    except (OSError, RuntimeError) as error:
        raise UserError(f"{folder.weights}: cannot be written ({error}); the checkpoint of the stage is kept") from error
    finally:
        temporary.unlink(missing_ok=True)


def load_weights(model: VARGPT, folder: StageFolder) -> None:
    """Load a finished stage's weights into the model."""
    from vargpt_lightning.commands.loading import _load_weights

    _load_weights(model, folder.weights)


def _step_of(checkpoint: Path | None) -> int:
    """The optimizer step that a checkpoint stands at; 0 without one."""
    if checkpoint is None:
        return 0
    from vargpt_lightning.callbacks.checkpoint_io import AtomicCheckpointIO

    return int(AtomicCheckpointIO().load_checkpoint(checkpoint)["global_step"])


