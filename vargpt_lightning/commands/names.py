"""Runs, folders and files that a command names, looked for before torch is imported: no torch here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vargpt_lightning.commands.paths import output_folder
from vargpt_lightning.errors import UserError, near_folder, near_path, nearest
from vargpt_lightning.results import RunFolder, StageFolder, read_json

if TYPE_CHECKING:
    from vargpt_lightning.commands.experiment import Experiment

OURS = "vargpt_lightning"  # `model_type` of a folder that `vargpt convert` or `save_pretrained` wrote


def check_model(where: str | Path, stage: str | None = None, exported: bool = True) -> None:
    """Make sure that a run with a finished stage is there, or a folder that `vargpt convert` wrote.

    Args:
        exported: whether such a folder will do.

    Raises:
        UserError: there is no such folder, it is neither, or the run has no such stage.
    """
    path = Path(where)
    if exported and is_converted(path):
        if stage is not None:
            raise UserError(f"--stage {stage}: {path} is a model by itself and has no stages")
        return
    if path.is_dir() and not (path / "run.json").is_file():
        more = " and is no folder that `vargpt convert` wrote" if exported else ""
        raise UserError(f"{path} is not a run folder: run.json is missing{more}")
    finished_stage(RunFolder(path), stage)


def is_converted(path: Path) -> bool:
    """Whether a folder is one that `vargpt convert` or `save_pretrained` made."""
    file = path / "config.json"
    config = read_json(file) if file.is_file() else None
    return isinstance(config, dict) and config.get("model_type") == OURS


def finished_stage(folder: RunFolder, name: str | None) -> StageFolder:
    """Return the stage asked for, or the last finished one; it has weights. Raises UserError when there is none."""
    stages = [stage for stage in folder.stages() if stage.status == "finished"]
    there = [stage.name for stage in stages]
    every = ", ".join(f"{stage.name} ({stage.status})" for stage in folder.stages()) or "none"
    if name is not None:
        stages = [stage for stage in stages if stage.name == name]
    if not stages:
        wanted = f"finished stage {name!r}" if name else "finished stage"
        close = nearest(name, there) if name else None
        meant = f"; did you mean '{close}'?" if close else ""
        raise UserError(f"{folder.path} has no {wanted}; its stages are: {every}{meant}")
    if not stages[-1].weights.is_file():
        raise UserError(f"{stages[-1].weights} is missing, although the stage {stages[-1].name} is finished")
    return stages[-1]


def check_places(experiment: Experiment) -> None:
    """Make sure that an experiment's data and first weights are there, and that its run's folder is no other thing.

    Raises:
        UserError: naming the key and the path.
    """
    from vargpt_lightning.data.packing import INDEX_NAME
    from vargpt_lightning.weights.locate import check_place

    for corpora in (getattr(experiment.data, split, None) for split in ("train", "val")):
        for folder in corpora.values() if isinstance(corpora, dict) else ():
            if not (Path(folder) / INDEX_NAME).is_file():
                near = near_folder(folder)
                raise UserError(f"{Path(folder) / INDEX_NAME}: not found; expected a folder of packed records{near}")
    for name, where in vars(experiment.init_from).items():
        if isinstance(where, str) and name != "new_rows":
            try:
                check_place(where)
            except UserError as error:
                raise UserError(f"init_from.{name}: {error}") from error
    run = Path(experiment.run.root) / str(experiment.run.name)
    output_folder(run)
    others = run.is_dir() and any(not entry.name.startswith(".") for entry in run.iterdir())
    if others and not (run / "run.json").is_file():
        raise UserError(f"{run} is neither empty nor a run folder (run.json is missing); name another folder")


def check_file(path: Path, what: str) -> None:
    """Make sure that a file is there.

    Raises:
        UserError: there is none, with one of a similar name.
    """
    if not path.exists():
        raise UserError(f"{path}: not found; expected {what}{near_path(path)}")
