"""Benchmarks at the end of a stage: the same questions each time, so that stages can be compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy

from vargpt_lightning.callbacks.ema import averaged_weights
from vargpt_lightning.callbacks.graceful_stop import GracefulStop
from vargpt_lightning.distributed.group import Processes
from vargpt_lightning.evaluation.base.benchmark import Benchmark
from vargpt_lightning.evaluation.base.protocols import TextModel
from vargpt_lightning.evaluation.harness.progress import benchmark_progress
from vargpt_lightning.evaluation.harness.run import BenchmarkSettings, run_benchmark
from vargpt_lightning.runs.folder import StageFolder
from vargpt_lightning.utils.errors import UserError


class StageBenchmarks(pl.Callback):
    """Run benchmarks when a fit has taken its last step, with the weights that the stage ends with.

    The figures go to the trainer's loggers, as `benchmark/<name>/<figure>` with `low` and `high` beside it, and the
    files to `benchmarks/<name>` in the stage's folder. A fit that was stopped by a signal runs none; killed in the
    middle, the same fit goes on with the next question. The ranks share the questions. The modes of the modules and
    the random streams of training are left as they were.

    Args:
        folder: the stage's folder.
        system: makes what answers, from the model that is trained; called with averaged weights if there are any.
        benchmarks: each benchmark's module with its data.
        settings: how they are asked and scored.

    Raises:
        UserError: in `setup`, for a strategy that shards the weights: ranks that ask different questions would wait
            for each other's weights for ever.
    """

    def __init__(
        self,
        folder: StageFolder,
        system: Callable[[], TextModel],
        benchmarks: Mapping[Benchmark, Path],
        settings: BenchmarkSettings,
    ) -> None:
        self.folder = folder
        self.system = system
        self.benchmarks = dict(benchmarks)
        self.settings = settings

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if isinstance(trainer.strategy, (FSDPStrategy, ModelParallelStrategy)) and trainer.world_size > 1:
            name = type(trainer.strategy).__name__
            raise UserError(
                f"evaluation.benchmarks: {name} shards the weights; expected no benchmarks at the ends of stages, "
                "and `vargpt evaluate RUN --benchmarks` afterwards"
            )

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Run them: the last checkpoint is written, and averaged weights are in their place."""
        if GracefulStop.stopped(trainer):
            return
        modes = {module: module.training for module in pl_module.modules()}
        pl_module.eval()
        try:
            with torch.random.fork_rng(), torch.no_grad(), averaged_weights(trainer, pl_module):
                self._run(trainer)
        finally:
            for module, mode in modes.items():
                module.training = mode

    def _run(self, trainer: pl.Trainer) -> None:
        processes = Processes(trainer.global_rank, trainer.world_size)
        system, began = self.system(), time.monotonic()
        figures: dict[str, float] = {}
        with benchmark_progress(quiet=not processes.first) as progress:
            for module, data in self.benchmarks.items():
                out = self.folder.path / "benchmarks"
                results = run_benchmark(
                    system, module, data, out, self.settings, processes=processes, progress=progress
                )
                for protocol, result in results.items():
                    figures |= _logged(module, result, protocol if len(results) > 1 else "")
        if processes.first:
            for logger in trainer.loggers:
                logger.log_metrics(figures, step=trainer.global_step - 1)
            seconds = self.folder.record.get("benchmark_seconds", 0.0) + time.monotonic() - began
            self.folder.update(benchmarks=figures, benchmark_seconds=seconds)


def _logged(module: Benchmark, result: Mapping[str, Any], protocol: str) -> dict[str, float]:
    """The headline figure with its interval; one that is undefined, as of no question of a kind, is left out."""
    where = "/".join(part for part in ("benchmark", module.NAME, protocol) if part)
    figures = {name: result["figures"].get(name) for name in (module.HEADLINE, "low", "high")}
    return {f"{where}/{name}": value for name, value in figures.items() if value is not None}
