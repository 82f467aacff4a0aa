from __future__ import annotations

import math
from pathlib import Path

import lightning.pytorch as pl
import pytest

from vargpt_lightning.callbacks.metrics_log import MetricsLog, ResumeMetrics
from vargpt_lightning.runs.folder import StageFolder


@pytest.fixture
def stage(tmp_path: Path) -> StageFolder:
    return StageFolder(tmp_path / "01-pretrain")


def test_rows_are_on_the_disk_at_once_with_the_steps_taken(stage: StageFolder) -> None:
    log = MetricsLog(stage)
    log.log_metrics({"a": 0.1, "b/c": 2, "epoch": 4}, step=0)
    log.log_metrics({"a": float("nan")}, step=1)
    rows = stage.metrics()
    assert rows[:2] == [(1, "a", 0.1), (1, "b/c", 2.0)]
    assert len(rows) == 3 and math.isnan(rows[2].value)


def test_a_step_is_needed(stage: StageFolder) -> None:
    with pytest.raises(ValueError, match=r"step=None for \['a'\]"):
        MetricsLog(stage).log_metrics({"a": 1.0})


def test_a_killed_run_resumed_has_each_step_once(
    stage: StageFolder, tmp_path: Path, make_trainer, make_loader, tiny, stop_after
) -> None:
    keep = pl.callbacks.ModelCheckpoint(tmp_path, every_n_train_steps=4, save_last=True)
    broken = make_trainer([ResumeMetrics(), keep, stop_after(7)], logger=MetricsLog(stage), enable_checkpointing=True)
    with pytest.raises(RuntimeError, match="killed"):
        broken.fit(tiny(), make_loader())
    text = (stage.path / "metrics.csv").read_text()
    assert [row.step for row in stage.metrics()] == [1, 2, 3, 4, 5, 6]
    (stage.path / "metrics.csv").write_text(text + "7,train/lo")
    again = make_trainer([ResumeMetrics()], logger=MetricsLog(stage))
    again.fit(tiny(), make_loader(), ckpt_path=tmp_path / "last.ckpt", weights_only=False)
    lines = (stage.path / "metrics.csv").read_text().split()
    assert [line.split(",")[:2] for line in lines[1:]] == [[str(step), "train/loss"] for step in range(1, 13)]


def test_a_run_that_starts_anew_starts_an_empty_table(stage: StageFolder, make_trainer, make_loader, tiny) -> None:
    MetricsLog(stage).log_metrics({"old": 1.0}, step=0)
    make_trainer([ResumeMetrics()], logger=MetricsLog(stage)).fit(tiny(), make_loader(3))
    assert [(row.step, row.name) for row in stage.metrics()] == [(step, "train/loss") for step in (1, 2, 3)]
