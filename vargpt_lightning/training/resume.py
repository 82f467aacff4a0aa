"""What a run folder has already, held against what its experiment asks for now. Imports no torch."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from vargpt_lightning.runs.folder import RunFolder, StageFolder
from vargpt_lightning.training.contents import Comparison, StageContents, content_hashes
from vargpt_lightning.training.packages import changed_packages
from vargpt_lightning.utils.errors import UserError

if TYPE_CHECKING:
    from vargpt_lightning.experiment.schema import Experiment

__all__ = ["alone", "check_folder", "content_hashes"]


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Look at a run's folder and write its record while no other process does: of two begun at once the second sees it.

    A folder that is not there is made; one with other things is left as it is, and refused by whoever looks.
    """
    if path.is_dir() and not (path / "run.json").is_file():
        other_things = any(not entry.name.startswith(".") for entry in path.iterdir())
    else:
        other_things = path.exists() and not path.is_dir()
    if other_things:
        yield
        return
    with suppress(FileExistsError, NotADirectoryError):
        path.mkdir(parents=True, exist_ok=True)
    if not path.is_dir():
        yield
        return
    with open(path / ".begin.lock", "w") as file:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def check_folder(path: Path, experiment: Experiment, processes: int | None = None) -> None:
    """Make sure that a run can resume as the experiment says; with `--from`, set aside what is trained again.

    Args:
        processes: how many will train, by default as the section trainer says; where these are others than before, the
            same batch of a step may be cut over them in another way.

    Raises:
        UserError: another process is at work in the folder, or a stage that was begun had other settings or data.
    """
    if not (path / "run.json").is_file():
        return
    run = RunFolder(path)
    _refuse_company(run)
    names = [stage.name for stage in experiment.stages]
    keep = names.index(experiment.start) if experiment.start else None
    contents = StageContents(experiment, processes)
    for folder in run.stages():
        if (keep is None or folder.index <= keep) and folder.record.get("hash"):
            _check_stage(run, folder, contents, names)
    whole = _whole(run, names)
    _set_aside(run, whole if keep is None else min(keep, whole))


def _check_stage(run: RunFolder, folder: StageFolder, contents: StageContents, names: list[str]) -> None:
    """Refuse a stage that is not the one the experiment asks for; say what is to be known of one that is."""
    if folder.index > len(names) or names[folder.index - 1] != folder.name:
        now = f"is {names[folder.index - 1]!r}" if folder.index <= len(names) else "is none"
        raise _refusal(run, folder, f"as stage {folder.index}, which now {now}", names)
    found, finished = contents.compare(run, folder), folder.status == "finished"
    if not found.same and not (finished and found.regrouped):
        raise _refusal(run, folder, _otherwise(found), names)
    say: list[str] = []
    if found.regrouped:
        say.append(f"was finished with another number of processes ({'; '.join(found.changes)}), and stays as it is")
    if found.cut and not finished:
        say.append("resumes with the same global batch, divided in another way")
    if found.unrecorded:
        say.append(
            "was trained before runs recorded what their data held; the data are older than the run, and are "
            "taken to be the same"
        )
        folder.update(settings={**contents.settings(folder.index - 1), "stage": folder.record["settings"]["stage"]})
    if said := changed_packages(folder.record.get("packages") or {}, contents.packages(folder.index - 1)):
        say.append(said)
    say += [f"{name} is not there any more, and is taken to be as it was" for name in found.gone]
    for line in say:
        print(f"stage {folder.name}: {line}", flush=True)


def _refuse_company(run: RunFolder) -> None:
    attempt = (run.record.get("attempts") or [{}])[-1]
    if run.status == "running" and attempt.get("pid") != os.getpid():
        raise UserError(
            f"{run.path}: process {attempt.get('pid')} is working on this run; wait for it, stop it, or take another "
            "--run.name"
        )


def _whole(run: RunFolder, names: list[str]) -> int:
    """How many stages can stay: the finished ones from the first on, and the next one, however far it is."""
    for index, name in enumerate(names):
        folder = run.stage(index + 1, name)
        if folder.status != "finished" or not folder.weights.is_file():
            return index + 1
    return len(names)


def _set_aside(run: RunFolder, keep: int) -> None:
    """Move all stages after the first `keep`, and what was made of them, into `replaced/`; nothing is deleted.

    The last stage goes first, so that a kill in between leaves a beginning of the plan and no gap.
    """
    moved = [folder.path for folder in reversed(run.stages()) if folder.index > keep]
    if not moved:
        return
    results = [run.evaluation, run.path / "benchmarks", run.report]
    prepared = [run.tokenizer, run.path / "cache"] if keep == 0 else []
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for path in [*results, *moved, *prepared]:
        if path.exists():
            target = run.path / "replaced" / stamp / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(path, target)
    kept = {folder.name for folder in run.stages()}
    run.update(durations={part: seconds for part, seconds in run.record.get("durations", {}).items() if part in kept})
    names = ", ".join(path.name for path in reversed(moved))
    print(f"{names}: moved to {run.path / 'replaced' / stamp}, trained again", flush=True)


def _otherwise(found: Comparison) -> str:
    if found.unrecorded and found.of_data:
        return f"by a version that did not record what the data held: {'; '.join(found.changes)}"
    return f"with other {'data' if found.of_data else 'settings'}: {'; '.join(found.changes)}"


def _refusal(run: RunFolder, folder: StageFolder, how: str, names: list[str]) -> UserError:
    place = min(folder.index, len(names)) - 1
    state = "finished" if folder.status == "finished" else "begun"
    return UserError(
        f"{run.path}: stage {folder.name!r} was {state} {how}. Go back to these, or add --from {names[place]} to "
        "train from there again, or --run.name NAME to keep both"
    )
