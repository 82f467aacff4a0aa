"""Loggers of Lightning are made from their class_path; sample grids reach those that take pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vargpt_lightning.callbacks.metrics_log import MetricsLog
from vargpt_lightning.callbacks.samples import send_picture
from vargpt_lightning.runs.folder import RunFolder
from vargpt_lightning.training.loggers import StageWandbLogger, build_loggers
from vargpt_lightning.utils.errors import UserError

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


def test_each_stage_is_a_run_of_weights_and_biases(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    entry = {"class_path": "WandbLogger", "init_args": {"offline": True}}
    for stage in ("base", "generation"):
        (logger,) = build_loggers([entry], run, stage)
        logger.log_metrics({"train/loss": 0.5}, step=3)
        assert send_picture(logger, f"samples/{stage}", SHEET, 3)
        logger.finalize("success")
    folders = sorted((run.path / "loggers" / "wandb").glob("offline-run-*"))
    assert [folder.name.rpartition("-")[2] for folder in folders] == ["base", "generation"]
    assert all(list(folder.glob("files/media/images/samples/*.png")) for folder in folders)


def test_a_stage_taken_up_again_is_the_same_run_of_mlflow(run: RunFolder) -> None:
    ids = []
    for stage, step in (("base", 3), ("base", 4), ("generation", 1)):
        (logger,) = build_loggers([{"class_path": "MLFlowLogger"}], run, stage)
        logger.log_metrics({"train/loss": 0.5}, step=step)
        ids.append(logger.run_id)  # type: ignore[attr-defined]
        assert send_picture(logger, f"samples/{stage}", SHEET, step)
        logger.finalize("success")
    assert ids[0] == ids[1] != ids[2]
    history = logger.experiment.get_metric_history(ids[0], "train/loss")
    assert [each.step for each in history] == [3, 4]
    assert len(list((run.path / "loggers" / "mlflow").rglob("*.png"))) == 3


def test_what_a_logger_says_at_its_start_is_one_message(run: RunFolder) -> None:
    entry = {"class_path": "MLFlowLogger", "init_args": {"tracking_uri": "nowhere://x"}}
    with pytest.raises(UserError, match=r"MLFlowLogger with tracking_uri does not start: .*nowhere"):
        build_loggers([entry], run, "base")


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
        ({"class_path": "CSVLogger", "init_args": ["a"]}, r"init_args of CSVLogger are \['a'\]; expected names"),
    ],
)
def test_what_is_no_logger_is_refused(run: RunFolder, entry: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        build_loggers([entry], run, "base")


def test_a_logger_without_a_way_to_take_pictures_gets_none(run: RunFolder) -> None:
    assert not send_picture(MetricsLog(run.stage(1, "base")), "samples/base", SHEET, 7)


@pytest.mark.parametrize(
    ("name", "error", "advice"),
    [
        ("WandbLogger", RuntimeError("No API key configured. Use `wandb login` to log in."), "offline: true"),
        ("MLFlowLogger", ConnectionError("connection refused"), "tracking_uri"),
        ("TensorBoardLogger", ModuleNotFoundError("No module named 'tensorboardX'"), "loggers"),
    ],
)
def test_what_a_logger_finds_only_when_it_starts_is_one_message(
    name: str, error: Exception, advice: str, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packages look for a login, a server or another package when the first value is logged, not when they are made."""
    from lightning.pytorch import loggers

    def fail(self: Any) -> Any:
        raise error

    kind = StageWandbLogger if name == "WandbLogger" else getattr(loggers, name)
    monkeypatch.setattr(kind, "experiment", property(fail))
    with pytest.raises(UserError, match=f"{name} .*{advice}"):
        build_loggers([{"class_path": name}], run, "base")
