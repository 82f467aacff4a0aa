from __future__ import annotations

import time
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.profilers import SimpleProfiler
from torch.utils.data import DataLoader, Dataset

from vargpt_lightning.callbacks import throughput
from vargpt_lightning.callbacks.metrics_log import MetricsLog
from vargpt_lightning.callbacks.throughput import Throughput
from vargpt_lightning.runs.folder import StageFolder


class Clock:
    """A clock that only moves when told to, so that rates are exact."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


class Slow(Dataset[Any]):
    """Each sample takes a second of the clock to read."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        self.clock.now += 1.0 if index > 3 else 50.0
        return torch.ones(4), torch.ones(1)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(throughput, "time", clock)
    return clock


def fit(clock: Clock, tiny: Any, make_trainer: Any, watch: Throughput | None = None, **settings: Any) -> Throughput:
    """A batch of two samples: 2 s of reading, 6 s of training; beside it 3 s of callbacks and 11 s of validation."""

    class Timed(tiny):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            clock.now += 6.0
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            clock.now += 11.0

    class Sheets(pl.Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            clock.now += 3.0

    watch = watch or Throughput(warmup=2)
    data = DataLoader(Slow(clock), batch_size=2)
    settings = {"val_check_interval": 2, "log_every_n_steps": 2} | settings
    make_trainer([watch, Sheets()], **settings).fit(Timed(), data, data)
    return watch


def test_rates_and_waiting_are_those_of_the_batches_alone(clock: Clock, tiny: Any, make_trainer: Any) -> None:
    watch = fit(clock, tiny, make_trainer)
    assert watch.last == pytest.approx(
        {
            "throughput/text_tokens_per_s": 14 / 8,
            "throughput/image_tokens_per_s": 6 / 8,
            "throughput/samples_per_s": 2 / 8,
            "throughput/data_wait": 2 / 8,
        }
    )


def test_padding_is_the_share_of_positions_without_a_token(clock: Clock, tiny: Any, make_trainer: Any) -> None:
    class Rows(tiny):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = super().training_step(batch, batch_idx)
            self.last_counts |= {"tokens": 10 + batch_idx, "positions": 20}
            return loss

    watch = fit(clock, Rows, make_trainer)
    # the last value covers two batches, the fifth and the sixth
    assert watch.last["throughput/padding"] == pytest.approx(1 - (14 + 15) / 40)


def test_values_go_to_the_loggers_after_the_warm_up(clock: Clock, tiny: Any, make_trainer: Any, tmp_path: Any) -> None:
    stage = StageFolder(tmp_path / "01-a")
    fit(clock, tiny, make_trainer, logger=MetricsLog(stage))
    assert [row.step for row in stage.metrics() if row.name == "throughput/data_wait"] == [4, 6]


@pytest.mark.parametrize("every", [1, 2])
def test_a_step_of_several_batches_is_logged_once(
    clock: Clock, tiny: Any, make_trainer: Any, tmp_path: Any, every: int
) -> None:
    """The second batch ends the step; the row covers both, and the last one of the step before is not in it."""

    class Grows(tiny):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = super().training_step(batch, batch_idx)
            self.last_counts |= {"tokens": batch_idx, "positions": 20}
            return loss

    stage = StageFolder(tmp_path / "01-a")
    fit(clock, Grows, make_trainer, logger=MetricsLog(stage), accumulate_grad_batches=2, log_every_n_steps=every)
    rows = {row.step: row.value for row in stage.metrics() if row.name == "throughput/padding"}
    assert len(rows) == len([row for row in stage.metrics() if row.name == "throughput/padding"])
    # of six batches in three steps the first two are the warm-up
    assert rows == pytest.approx({2: 1 - (2 + 3) / 40, 3: 1 - (4 + 5) / 40} if every == 1 else {2: 1 - (2 + 3) / 40})


def test_another_profiler_stays_and_waiting_is_left_out(clock: Clock, tiny: Any, make_trainer: Any) -> None:
    with pytest.warns(UserWarning, match="SimpleProfiler.*data_wait"):
        watch = fit(clock, tiny, make_trainer, profiler=SimpleProfiler())
    assert "throughput/data_wait" not in watch.last and watch.last["throughput/samples_per_s"] == pytest.approx(2 / 6)


def test_a_negative_warm_up_is_refused() -> None:
    with pytest.raises(ValueError, match="warmup=-1"):
        Throughput(-1)


def test_the_real_clock_is_used() -> None:
    assert throughput.time is time


def test_utilisation_is_by_the_plans_operations(clock: Clock, tiny: Any, make_trainer: Any) -> None:
    watch = fit(clock, tiny, make_trainer, Throughput(warmup=2, flops_per_sample=8e12, peak=4e12))
    assert watch.last["throughput/model_tflops_per_s"] == pytest.approx(2.0)
    assert watch.last["throughput/mfu"] == pytest.approx(0.5)
    watch = fit(clock, tiny, make_trainer, Throughput(warmup=2, flops_per_sample=8e12))
    assert "throughput/mfu" not in watch.last, "the peak of a CPU is not known"
