"""Loggers of Lightning are made from their class_path; sample sheets reach those that take pictures."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from vargpt_lightning.callbacks.metrics_log import MetricsLog
from vargpt_lightning.callbacks.samples import send_picture
from vargpt_lightning.commands.loggers import build_loggers
from vargpt_lightning.errors import UserError
from vargpt_lightning.results import RunFolder

SHEET = Image.new("RGB", (8, 8), "red")


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.start(tmp_path / "one")


def test_tensorboard_gets_numbers_and_sheets_in_the_runs_folder(run: RunFolder) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (logger,) = build_loggers([{"class_path": "TensorBoardLogger"}], run, "base")
    logger.log_metrics({"train/loss": 0.5}, step=3)
    assert send_picture(logger, "samples/base", SHEET, 3)
    logger.save()
    logger.finalize("success")
    found = EventAccumulator(str(run.path / "loggers" / "tensorboard" / "base")).Reload()
    assert [(row.step, row.value) for row in found.Scalars("train/loss")] == [(3, 0.5)]
    assert [image.step for image in found.Images("samples/base")] == [3]


def test_a_name_with_its_package_and_arguments_is_taken(run: RunFolder, tmp_path: Path) -> None:
    entry = {
        "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
        "init_args": {"save_dir": str(tmp_path / "x")},
    }
    (logger,) = build_loggers([entry], run, "base")
    assert logger.save_dir == str(tmp_path / "x")


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"class_path": "os.system"}, r"'os\.system'; expected one of .*TensorBoardLogger"),
        ({"class_path": "lightning.pytorch.Trainer"}, "expected one of"),
        ({"class_path": "Logger"}, "expected one of"),
        ({"init_args": {}}, "expected class_path"),
    ],
)
def test_what_is_no_logger_is_refused(run: RunFolder, entry: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        build_loggers([entry], run, "base")


def test_sheets_reach_each_kind_of_logger_in_its_own_way(run: RunFolder) -> None:
    sent: list[tuple[Any, ...]] = []
    wandb = SimpleNamespace(log_image=lambda name, pictures, step: sent.append((name, pictures, step)))
    client = SimpleNamespace(log_image=lambda run_id, picture, artifact_file: sent.append((run_id, artifact_file)))
    mlflow = SimpleNamespace(experiment=client, run_id="r1")
    assert send_picture(wandb, "samples/base", SHEET, 7)  # type: ignore[arg-type]
    assert send_picture(mlflow, "samples/base", SHEET, 7)  # type: ignore[arg-type]
    assert sent == [("samples/base", [SHEET], 7), ("r1", "samples/base-000007.png")]
    assert not send_picture(MetricsLog(run.stage(1, "base")), "samples/base", SHEET, 7)
