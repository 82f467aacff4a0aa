"""What takes minutes is put together rightly; that it runs is seen by `vargpt doctor --full`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from vargpt_lightning.doctor import full
from vargpt_lightning.doctor.findings import Fault, Noteworthy
from vargpt_lightning.doctor.losses import kept_losses


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The options of the trainings that were asked for; none is done, and each has the kept losses."""
    asked: list[tuple[str, ...]] = []

    def fit(folder: Path, *options: str) -> Path:
        asked.append(options)
        return folder

    monkeypatch.setattr(full, "fit", fit)
    monkeypatch.setattr(full, "losses_of", lambda run: kept_losses())
    return asked


def test_two_processes_share_the_batch_of_one(fits: list[tuple[str, ...]]) -> None:
    assert full.strategy_losses("cpu", "fsdp2").startswith("2 processes: 5 stages, off by 0 %")
    (options,) = fits
    assert options[:6] == ("--trainer.accelerator", "cpu", "--trainer.strategy", "fsdp2", "--trainer.devices", "2")
    assert options[options.index("--stages.pretrain.batch_size") + 1] == "4" and len(options) == 16
    assert [check.name for check in full.full_checks("cpu")][:3] == [f"every stage, {name}" for name in full.STRATEGIES]


@pytest.mark.parametrize(("ends", "said"), [("sys.exit(143)", "stopped in its first stage"), ("sys.exit(0)", "ended")])
def test_a_run_is_stopped_and_started_again(
    fits: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch, ends: str, said: str
) -> None:
    """In place of the training a program that writes steps, and ends as it says when it is stopped."""

    def program(folder: Path, *options: str) -> list[str]:
        stages = folder / "debug" / "stages" / "01-tokenizer"
        lines = [
            "import pathlib, signal, sys, time",
            f"signal.signal(signal.SIGTERM, lambda *_: {ends})",
            f"folder = pathlib.Path({str(stages)!r}); folder.mkdir(parents=True)",
            "(folder / 'metrics.csv').write_text('1,a,1\\n' * 20)",
            "time.sleep(30)",
        ]
        return [sys.executable, "-c", "\n".join(lines)]

    monkeypatch.setattr(full, "fit_command", program)
    found = full.resumed("cpu")
    assert said in found and isinstance(found, Noteworthy) == (said == "ended") and len(fits) == 1


def test_a_stopped_run_that_ends_otherwise_is_a_fault(fits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(full, "fit_command", lambda folder, *options: [sys.executable, "-c", "raise OSError('full')"])
    with pytest.raises(Fault, match="ends with 1: OSError: full"):
        full.resumed("cpu")
