from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import psutil
import pytest

from vargpt_lightning.callbacks import run_record
from vargpt_lightning.callbacks.graceful_stop import GracefulStop
from vargpt_lightning.callbacks.run_record import RunRecord, peak_memory, run_status
from vargpt_lightning.runs.folder import RunFolder
from vargpt_lightning.utils.errors import UserError


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.start(tmp_path / "run", command=["vargpt", "fit"])


class Clock:
    now = 50.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(run_record, "time", clock)
    return clock


class Seconds(pl.Callback):
    """Each batch takes so many seconds of the clock; at one of them `then` happens."""

    def __init__(self, clock: Clock, seconds: float, at: int = -1, then: Any = None) -> None:
        self.clock, self.seconds, self.at, self.then = clock, seconds, at, then

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.clock.now += self.seconds
        if batch_idx == self.at:
            self.then()


def test_a_stage_leaves_steps_seconds_and_memory(clock, run: RunFolder, make_trainer, make_loader, tiny) -> None:
    stage = run.stage(1, "pretrain")
    make_trainer([Seconds(clock, 3), RunRecord(run, stage)]).fit(tiny(), make_loader())
    record = stage.record
    assert record["steps"] == record["total_steps"] == 12 and record["status"] == "running"
    assert record["seconds"] == run.record["durations"]["pretrain"] == 36.0
    assert record["peak_memory"] == run.record["peak_memory"] > 50 * 2**20


def test_a_killed_stage_has_what_was_written_before(clock, run: RunFolder, make_trainer, make_loader, tiny) -> None:
    stage, seen = run.stage(1, "pretrain"), []
    look = Seconds(
        clock, 3, at=11, then=lambda: seen.append((stage.record["steps"], run.record["durations"]["pretrain"]))
    )
    make_trainer([look, RunRecord(run, stage, every=10)]).fit(tiny(), make_loader())
    assert seen == [(8, 24.0)]


def test_attempts_add_up(clock, run: RunFolder, make_trainer, make_loader, tiny) -> None:
    for _ in range(2):
        make_trainer([Seconds(clock, 3), RunRecord(run, run.stage(1, "pretrain"))]).fit(tiny(), make_loader(2))
    assert run.stage(1, "pretrain").record["seconds"] == run.record["durations"]["pretrain"] == 12.0


def test_an_error_is_a_failure(clock, run: RunFolder, make_trainer, make_loader, tiny, stop_after) -> None:
    stage = run.stage(1, "pretrain")
    with pytest.raises(RuntimeError, match="killed"):
        make_trainer([Seconds(clock, 3), RunRecord(run, stage), stop_after(2)]).fit(tiny(), make_loader())
    assert stage.status == "failed" and stage.record["steps"] == 2 and stage.record["seconds"] == 6.0


def test_a_signal_is_an_interruption(clock, run: RunFolder, make_trainer, make_loader, tiny, tmp_path: Path) -> None:
    stage = run.stage(1, "pretrain")
    send = Seconds(clock, 3, at=4, then=lambda: os.kill(os.getpid(), signal.SIGTERM))
    make_trainer([send, RunRecord(run, stage), GracefulStop(tmp_path / "last.ckpt")]).fit(tiny(), make_loader())
    assert stage.status == "interrupted" and stage.record["steps"] == 5


def test_a_full_disk_does_not_hide_the_error(
    monkeypatch: pytest.MonkeyPatch, run: RunFolder, make_trainer, make_loader, tiny, stop_after
) -> None:
    record = RunRecord(run, run.stage(1, "pretrain"))

    class Fill(pl.Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            def full(*args: Any, **kwargs: Any) -> None:
                raise UserError("no space left")

            monkeypatch.setattr(record, "_write", full)

    with pytest.raises(RuntimeError, match="killed"):
        make_trainer([record, Fill(), stop_after(2)]).fit(tiny(), make_loader())


@pytest.mark.parametrize(
    ("error", "status"), [(None, "finished"), (KeyboardInterrupt(), "interrupted"), (UserError("no"), "failed")]
)
def test_a_run_ends_as_its_block_does(error: BaseException | None, status: str, run: RunFolder) -> None:
    with contextlib.suppress(KeyboardInterrupt, UserError), run_status(run):
        assert run.record["status"] == "running"
        if error:
            raise error
    assert run.record["status"] == status


def test_a_run_ended_inside_stays_so(run: RunFolder) -> None:
    with run_status(run):
        run.end("interrupted")
    assert run.record["status"] == "interrupted"


def test_peak_memory_is_in_bytes() -> None:
    now = psutil.Process().memory_info().rss
    assert 0.9 * now <= peak_memory() < psutil.virtual_memory().total
