"""Runs, folders and files that a command names, looked for before torch is imported: no torch here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vargpt_lightning.runs.folder import RunFolder, StageFolder
from vargpt_lightning.utils.errors import UserError, near_path, nearest
from vargpt_lightning.utils.files import read_json

if TYPE_CHECKING:
    pass

OURS = "vargpt_lightning"  # `model_type` of a folder that `vargpt convert` or `save_pretrained` wrote


def check_model(where: str | Path, stage: str | None = None, exported: bool = True) -> None:
    """Make sure that a run with a finished stage is there, or a folder that `vargpt convert` wrote.

    Args:
        exported: whether such a folder will do.

    Raises:
        UserError: there is no such folder, it is neither, or the run has no such stage.
    """
    if not str(where).strip():
        raise UserError(f"{str(where)!r} is no run folder; expected the path of one, such as runs/openmoji")
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


def check_file(path: Path, what: str) -> None:
    """Make sure that a file is there.

    Raises:
        UserError: there is none, with one of a similar name.
    """
    if not path.exists():
        raise UserError(f"{path}: not found; expected {what}{near_path(path)}")
