from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from tests.callbacks.conftest import Tiny, loader, trainer
from tests.ranks import run_ranks, said
from vargpt_lightning.callbacks.batch_rng import BatchRng
from vargpt_lightning.callbacks.graceful_stop import GracefulStop


class Signal(pl.Callback):
    """Sends a signal to this process at the start of a batch, so many times."""

    def __init__(self, number: signal.Signals, at: int, times: int = 1) -> None:
        self.number, self.at, self.times = number, at, times

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.at:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)
            self.times = 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_batch_saves_and_stops(
    number: signal.Signals, tmp_path: Path, make_trainer, make_loader, tiny
) -> None:
    stop = GracefulStop(tmp_path / "last.ckpt")
    before = signal.getsignal(number)
    trainer = make_trainer([Signal(number, 4), stop])
    trainer.fit(tiny(), make_loader())
    assert trainer.global_step == 5 and stop.stopped(trainer) and stop.exit_code == 128 + number
    assert torch.load(tmp_path / "last.ckpt", weights_only=False)["global_step"] == 5
    assert signal.getsignal(number) is before


def test_a_fit_without_a_signal_is_left_alone(tmp_path: Path, make_trainer, make_loader, tiny) -> None:
    stop = GracefulStop(tmp_path / "last.ckpt")
    trainer = make_trainer([stop])
    trainer.fit(tiny(), make_loader())
    assert (
        trainer.global_step == 12
        and not stop.stopped(trainer)
        and stop.exit_code == 0
        and not (tmp_path / "last.ckpt").exists()
    )


def test_no_validation_follows_and_minimal_lengths_do_not_hold_it(
    tmp_path: Path, make_trainer, make_loader, tiny
) -> None:
    module = tiny()
    stop = GracefulStop(tmp_path / "last.ckpt")
    trainer = make_trainer([Signal(signal.SIGTERM, 4), stop], min_steps=9, min_epochs=1, val_check_interval=3)
    trainer.fit(module, make_loader(), make_loader(1))
    assert trainer.global_step == 5 and len(module.validated) == 1


def test_a_step_is_finished_under_accumulation(tmp_path: Path, make_trainer, make_loader, tiny) -> None:
    trainer = make_trainer([Signal(signal.SIGTERM, 1), GracefulStop(tmp_path / "last.ckpt")], accumulate_grad_batches=4)
    trainer.fit(tiny(), make_loader())
    assert trainer.global_step == 2 and trainer.fit_loop.total_batch_idx == 7


def test_the_run_goes_on_exactly_where_it_stopped(tmp_path: Path, make_trainer, make_loader, tiny) -> None:
    """A checkpoint callback that saves when an epoch ends must not take the unfinished epoch for a finished one."""

    def callbacks() -> list[pl.Callback]:
        return [BatchRng(0), GracefulStop(), pl.callbacks.ModelCheckpoint(tmp_path, every_n_epochs=1, save_last=True)]

    data = make_loader(same=True)
    whole = tiny()
    make_trainer([BatchRng(0)], max_epochs=3).fit(whole, data)
    first = make_trainer([Signal(signal.SIGTERM, 16), *callbacks()], max_epochs=3, enable_checkpointing=True)
    first.fit(tiny(), data)
    assert first.global_step == 17
    resumed = tiny()
    trainer = make_trainer(callbacks(), max_epochs=3, enable_checkpointing=True)
    trainer.fit(resumed, data, ckpt_path=tmp_path / "last.ckpt", weights_only=False)
    assert trainer.global_step == 36
    assert torch.equal(whole.trained.weight, resumed.trained.weight)


def test_a_second_interrupt_stops_at_once(tmp_path: Path, make_trainer, make_loader, tiny) -> None:
    stop = GracefulStop(tmp_path / "last.ckpt")
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        with pytest.raises((KeyboardInterrupt, SystemExit)):  # Lightning makes an exit of it
            make_trainer([Signal(signal.SIGINT, 4, times=2), stop]).fit(tiny(), make_loader())
        assert not (tmp_path / "last.ckpt").exists()
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), handlers, strict=True):
            signal.signal(number, handler)


def one_of_two_ranks(folder: Path) -> int:
    """Fit beside another rank; the second is told to stop."""
    stop = GracefulStop(folder / "last.ckpt")
    one_rank: list[pl.Callback] = [Signal(signal.SIGTERM, 2)] if os.environ["RANK"] == "1" else []
    fit = trainer([*one_rank, stop], devices=2, strategy="ddp")
    fit.fit(Tiny(), loader(24))
    (folder / f"rank{os.environ['RANK']}").write_text(f"{stop.stopped(fit)} {stop.exit_code} {fit.global_step}")
    return 0


def test_a_signal_to_one_rank_stops_both_at_the_same_step(tmp_path: Path) -> None:
    assert run_ranks(2, tmp_path / "log", one_of_two_ranks, tmp_path) == [0, 0], said(tmp_path / "log", 2)
    assert [(tmp_path / f"rank{rank}").read_text() for rank in (0, 1)] == ["True 143 3"] * 2
    assert torch.load(tmp_path / "last.ckpt", weights_only=False)["global_step"] == 3
