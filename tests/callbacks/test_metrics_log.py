from __future__ import annotations

import csv
from pathlib import Path

import lightning.pytorch as pl
import pytest

from vargpt_lightning.callbacks.metrics_log import MetricsLog, ResumeMetrics


def rows(path: Path) -> list[tuple[int, str, float]]:
    with path.open(newline="") as file:
        table = list(csv.DictReader(file))
    return [(int(row["step"]), row["name"], float(row["value"])) for row in table]


def test_rows_are_tidy_and_on_the_disk_at_once(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "new" / "metrics.csv")
    log.log_metrics({"a": 0.1, "b/c, d": 2, "epoch": 4}, step=0)
    log.log_metrics({"a": float("nan")}, step=1)
    table = rows(log.path)
    assert table[:2] == [(0, "a", 0.1), (0, "b/c, d", 2.0)]
    assert len(table) == 3 and table[2][2] != table[2][2]


def test_a_step_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="step=None.*'a'"):
        MetricsLog(tmp_path / "m.csv").log_metrics({"a": 1.0})


def test_rows_from_a_step_on_are_dropped(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "m.csv")
    for step in range(5):
        log.log_metrics({"a": step}, step=step)
    assert log.keep_before(3) == 2
    assert [step for step, _, _ in rows(log.path)] == [0, 1, 2]
    assert log.keep_before(3) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["m.csv"]


@pytest.mark.parametrize("tail", ["2,a,0.1", "2,a", "2,", "x,a,1\n", "2,a,no\n"])
def test_a_half_written_row_is_dropped(tail: str, tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "m.csv")
    log.log_metrics({"a": 1}, step=0)
    with log.path.open("a") as file:
        file.write(tail)
    log.keep_before(9)
    log.log_metrics({"a": 2}, step=1)
    assert rows(log.path) == [(0, "a", 1.0), (1, "a", 2.0)]


def test_a_killed_run_resumed_has_each_step_once(tmp_path: Path, make_trainer, make_loader, tiny, stop_after) -> None:
    log = MetricsLog(tmp_path / "metrics.csv")
    keep = pl.callbacks.ModelCheckpoint(tmp_path, every_n_train_steps=4, save_last=True)
    with pytest.raises(RuntimeError, match="killed"):
        make_trainer([ResumeMetrics(), keep, stop_after(7)], logger=log, enable_checkpointing=True).fit(tiny(), make_loader())
    assert [step for step, _, _ in rows(log.path)] == [0, 1, 2, 3, 4, 5]
    again = make_trainer([ResumeMetrics()], logger=MetricsLog(log.path))
    again.fit(tiny(), make_loader(), ckpt_path=tmp_path / "last.ckpt", weights_only=False)
    assert [(step, name) for step, name, _ in rows(log.path)] == [(step, "train/loss") for step in range(12)]


def test_a_run_that_starts_anew_starts_an_empty_table(tmp_path: Path, make_trainer, make_loader, tiny) -> None:
    log = MetricsLog(tmp_path / "metrics.csv")
    log.log_metrics({"old": 1.0}, step=0)
    make_trainer([ResumeMetrics()], logger=log).fit(tiny(), make_loader(3))
    assert [(step, name) for step, name, _ in rows(log.path)] == [(step, "train/loss") for step in range(3)]
