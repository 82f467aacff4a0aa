"""Loggers of Lightning beside the table that is always written: TensorBoard, Weights & Biases, MLflow and others."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from vargpt_lightning.runs.folder import RunFolder
from vargpt_lightning.utils.class_paths import arguments_of, class_path_of, not_started
from vargpt_lightning.utils.errors import UserError, install_hint, meant

KEY = "trainer.loggers"
PACKAGE = "lightning.pytorch.loggers"
MLFLOW_TAG = "vargpt.stage"


class StageWandbLogger(WandbLogger):
    """Ends its run with the stage: Lightning's would send all stages after the first one to the first one's run."""

    @rank_zero_only
    def finalize(self, status: str) -> None:
        super().finalize(status)
        if self._experiment is not None:
            self._experiment.finish(exit_code=0 if status == "success" else 1)


def build_loggers(entries: Sequence[dict[str, Any]], run: RunFolder, stage: str) -> list[Logger]:
    """Return the loggers of one stage.

    Args:
        entries: class_path, a class of lightning.pytorch.loggers with or without the package's name, and init_args.
        run: what they keep on this machine goes to its folder, `loggers/`, unless init_args say otherwise.
        stage: each stage is a run of its own to them, resumed when the stage is.

    Raises:
        UserError: there is no such class, the package behind it is not installed, or it refuses its arguments.
    """
    return [_build(entry, run, stage) for entry in entries]


def _build(entry: dict[str, Any], run: RunFolder, stage: str) -> Logger:
    path, given = class_path_of(entry, KEY), arguments_of(entry, KEY)
    package, _, name = path.rpartition(".")
    there = importlib.import_module(PACKAGE)
    kind = getattr(there, name, None) if package in ("", PACKAGE) else None
    if not (isinstance(kind, type) and issubclass(kind, Logger) and kind is not Logger):
        names = [each for each in there.__all__ if each not in ("Logger", "CSVLogger")]
        raise UserError(f"{KEY}: {path!r}; expected one of {', '.join(names)}{meant(name, names)}")
    kind = StageWandbLogger if kind is WandbLogger else kind
    arguments = {**_defaults(name, run, stage), **given}
    try:
        if name == "MLFlowLogger":
            arguments = {"run_id": _mlflow_run(arguments), **arguments}
        made: Any = kind(**arguments)
        _ = made.experiment  # begun now: most packages find only here that they cannot
    except (ImportError, ModuleNotFoundError) as error:
        advice = install_hint("loggers")
        raise UserError(f"{KEY}: {name} needs a package that is not installed: {advice} ({error})") from error
    except Exception as error:  # wrong arguments, a server that is away, a missing key: each package has its classes
        raise not_started(KEY, name, given, error, _advice(name)) from error
    begun: Logger = made
    return begun


def _advice(name: str) -> str:
    """What most often helps."""
    return {
        "WandbLogger": "; log in with `wandb login` or WANDB_API_KEY, or keep it on this machine: offline: true",
        "MLFlowLogger": "; tracking_uri names the server, none keeps it in the run's folder",
        "CometLogger": "; it needs COMET_API_KEY, or online: false",
        "NeptuneLogger": "; it needs NEPTUNE_API_TOKEN",
    }.get(name, "")


def _defaults(name: str, run: RunFolder, stage: str) -> dict[str, Any]:
    """Where a logger keeps its files, and by what name it finds a resumed stage again."""
    folder = run.path.resolve() / "loggers"
    if name == "TensorBoardLogger":
        return {"save_dir": str(folder), "name": "tensorboard", "version": stage}
    started = "".join(letter for letter in str(run.record.get("started")) if letter.isdigit())
    if name == "WandbLogger":
        known = {"project": "vargpt-lightning", "group": run.name, "name": f"{run.name} {stage}", "resume": "allow"}
        return {"save_dir": str(folder), "id": f"{run.name}-{started}-{stage}", **known}
    if name == "MLFlowLogger":
        folder.mkdir(parents=True, exist_ok=True)  # SQLite makes the file, not its folder
        places = {"tracking_uri": f"sqlite:///{folder}/mlflow.db", "artifact_location": (folder / "mlflow").as_uri()}
        tags = {MLFLOW_TAG: f"{run.name}-{started}-{stage}"}
        return {**places, "experiment_name": run.name, "run_name": stage, "tags": tags}
    return {}


def _mlflow_run(arguments: dict[str, Any]) -> str | None:
    """The run of a stage that is resumed; MLflow knows it by its tag."""
    from mlflow import MlflowClient

    client = MlflowClient(arguments["tracking_uri"])
    experiment = client.get_experiment_by_name(arguments["experiment_name"])
    value = (arguments["tags"] or {}).get(MLFLOW_TAG)
    if experiment is None or value is None:
        return None
    found = client.search_runs([experiment.experiment_id], f"tags.`{MLFLOW_TAG}` = '{value}'", max_results=1)
    return str(found[0].info.run_id) if found else None
