"""How fast training goes, and how much of the time it waits for data.

Lightning's ThroughputMonitor takes all batches to be of one size and rank 0 to speak for the others, knows no time
spent waiting for data and no padding, and waits for the GPU after each batch; here counts of every rank are added up.
"""

from __future__ import annotations

import time
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.profilers import PassThroughProfiler, Profiler
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

COUNTS = ("text_tokens", "image_tokens", "samples")
ROWS = ("tokens", "positions")


class FetchTimer(PassThroughProfiler):
    """Add up the seconds that the training loop spends in the data loader's `next`."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self._began = 0.0

    def start(self, action_name: str) -> None:
        if action_name.endswith("train_dataloader_next"):
            self._began = time.perf_counter()

    def stop(self, action_name: str) -> None:
        if action_name.endswith("train_dataloader_next"):
            self.seconds += time.perf_counter() - self._began


class Throughput(pl.Callback):
    """Log text tokens, image tokens and samples per second of all ranks, and the share of time spent waiting for data.

    Reads `last_counts` of the module after each batch: a dict of ints with the keys text_tokens, image_tokens and
    samples, and, where batches are rows of tokens, tokens and positions, whose difference is padding. Time is that of
    the batches and of fetching them; validation, checkpoints and sample grids are not in it, if this callback stands
    before those that run at the end of a batch. A value covers the batches since the one before; it goes to the loggers
    every `log_every_n_steps` as throughput/text_tokens_per_s, throughput/image_tokens_per_s, throughput/samples_per_s,
    throughput/data_wait and throughput/padding (0 to 1: shares of time and of positions).

    With `flops_per_sample` also throughput/model_tflops_per_s, of one process, and on a GPU that the catalogue of
    `vargpt plan` knows throughput/mfu, the share of its dense bf16 peak that this is.

    Args:
        flops_per_sample: floating-point operations that a sample needs by the plan, repeated ones not counted.
        peak: FLOP/s of one device; None looks the GPU up.
        warmup: batches at the start of a fit that are not measured (allocation, compilation, the first pages of the
            data).

    Raises:
        ValueError: for a negative warm-up.
    """

    def __init__(self, warmup: int = 3, flops_per_sample: float | None = None, peak: float | None = None) -> None:
        if warmup < 0:
            raise ValueError(f"warmup={warmup}; expected a number of batches, 0 or more")
        self.warmup = warmup
        self.flops_per_sample, self.peak = flops_per_sample, peak
        self.last: dict[str, float] = {}
        self._timer: FetchTimer | None = None
        self._skip = warmup
        self._last_step = 0
        self._reset()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        profiler: Profiler = trainer.profiler  # type: ignore[attr-defined]
        if isinstance(profiler, FetchTimer):
            self._timer = profiler
        elif type(profiler) is PassThroughProfiler:
            self._timer = trainer.profiler = FetchTimer()  # type: ignore[attr-defined]
        else:  # the loop tells one profiler alone when it fetches
            rank_zero_warn(f"profiler={type(profiler).__name__}: throughput/data_wait is not measured beside it")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._skip = self.warmup
        self._last_step = trainer.global_step
        self._reset()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._began = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # with accumulation most batches end without a step, and Lightning would log after each of them
        stepped, self._last_step = trainer.global_step > self._last_step, trainer.global_step
        if self._skip > 0:
            self._skip -= 1
            self._reset()
            return
        self._trained += time.perf_counter() - self._began
        counts: dict[str, int] = pl_module.last_counts  # type: ignore[assignment]
        for name in (*COUNTS, *ROWS):
            self._counts[name] += counts.get(name, 0)
        # the steps at which Lightning logs, as in its LearningRateMonitor
        if stepped and trainer._logger_connector.should_update_logs:
            self._log(trainer)

    def _reset(self) -> None:
        self._began = time.perf_counter()
        self._trained = 0.0
        self._fetched_before = self._timer.seconds if self._timer else 0.0
        self._counts = dict.fromkeys((*COUNTS, *ROWS), 0)

    def _log(self, trainer: pl.Trainer) -> None:
        """Add up counts and seconds over the ranks, divide once, write, start afresh."""
        waited = self._timer.seconds - self._fetched_before if self._timer else 0.0
        sums = torch.tensor(
            [*(self._counts[name] for name in (*COUNTS, *ROWS)), waited, waited + self._trained],
            dtype=torch.float32 if trainer.strategy.root_device.type == "mps" else torch.float64,
            device=trainer.strategy.root_device,
        )
        *counts, tokens, positions, waited, spent = trainer.strategy.reduce(sums, reduce_op="sum").tolist()
        rank_seconds = max(spent / trainer.world_size, 1e-9)
        self.last = {
            f"throughput/{name}_per_s": count / rank_seconds for name, count in zip(COUNTS, counts, strict=True)
        }
        if self.flops_per_sample:
            rate = self.flops_per_sample * self.last["throughput/samples_per_s"] / trainer.world_size
            self.last["throughput/model_tflops_per_s"] = rate / 1e12
            if peak := self.peak or gpu_peak(trainer.strategy.root_device):
                self.last["throughput/mfu"] = rate / peak
        if positions:
            self.last["throughput/padding"] = 1 - tokens / positions
        if self._timer:
            self.last["throughput/data_wait"] = waited / max(spent, 1e-9)
        for logger in trainer.loggers:
            logger.log_metrics(self.last, step=trainer.fit_loop.epoch_loop._batches_that_stepped)
        self._reset()


def gpu_peak(device: torch.device) -> float | None:
    """Return the dense bf16 FLOP/s of a GPU that the catalogue knows, else None."""
    if device.type != "cuda":
        return None
    from vargpt_lightning.utils.gpus import flops_of

    return flops_of(torch.cuda.get_device_name(device))
