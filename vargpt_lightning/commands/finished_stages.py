"""What a run folder has already, held against what its experiment asks for now. Imports no torch."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vargpt_lightning.errors import UserError
from vargpt_lightning.modules.stage import Stage, stage_hashes
from vargpt_lightning.results import RunFolder, StageFolder

if TYPE_CHECKING:
    from vargpt_lightning.commands.experiment import Experiment


def content_hashes(experiment: Experiment) -> list[str]:
    """Return for each stage a hash of all that its result depends on."""
    return stage_hashes(experiment.stages, experiment.stage_basis())


def settings_of(experiment: Experiment, stage: Stage) -> dict[str, Any]:
    """Return what a stage's result depends on, the stages before it left out, as plain JSON values."""
    values = {**experiment.stage_basis(), "stage": asdict(stage)}
    plain: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return plain


def check_folder(path: Path, experiment: Experiment, processes: int = 1) -> None:
    """Make sure that a run can be taken up as the experiment says; with `--from`, set aside what is trained again.

    Args:
        processes: how many will train; where these are others than before, the same batch of a step may be cut over
            them in another way.

    Raises:
        UserError: another process is at work in the folder, or a stage that was begun had other settings.
    """
    if not (path / "run.json").is_file():
        return
    run = RunFolder(path)
    _refuse_company(run)
    names = [stage.name for stage in experiment.stages]
    keep = names.index(experiment.start) if experiment.start else None
    hashes = content_hashes(experiment)
    for folder in run.stages():
        if (keep is None or folder.index <= keep) and folder.record.get("hash"):
            same_name = folder.index <= len(names) and names[folder.index - 1] == folder.name
            if same_name and folder.record["hash"] == hashes[folder.index - 1]:
                continue
            if not same_name or not _only_cut_differently(folder, experiment, processes):
                raise _other_settings(run, folder, experiment)
            if folder.status != "finished":
                print(f"stage {folder.name}: resumes with the same global batch, divided in another way", flush=True)
    whole = _whole(run, names)
    _set_aside(run, whole if keep is None else min(keep, whole))


def _refuse_company(run: RunFolder) -> None:
    attempt = (run.record.get("attempts") or [{}])[-1]
    if run.status == "running" and attempt.get("pid") != os.getpid():
        raise UserError(
            f"{run.path}: process {attempt.get('pid')} is working on this run; wait for it, stop it, or take another "
            "--run.name"
        )


def _only_cut_differently(folder: StageFolder, experiment: Experiment, processes: int) -> bool:
    """Whether a stage differs from its record in nothing but how the batch of a step is cut over processes and time."""
    record = folder.record
    before, now = record.get("settings"), settings_of(experiment, experiment.stages[folder.index - 1])
    if not before or "processes" not in record:
        return False
    return _of_all(before, int(record["processes"])) == _of_all(now, processes)


def _of_all(settings: dict[str, Any], processes: int) -> dict[str, Any]:
    """A stage's settings with the batch of a whole step in place of one process's."""
    stage = settings["stage"]
    parts = stage["accumulate"] * processes
    if stage.get("max_tokens"):  # these batches are dealt out whole
        return {**settings, "stage": {**stage, "accumulate": parts}}
    sizes = {key: stage[key] * parts for key in ("batch_size", "text_batch_size") if stage.get(key)}
    return {**settings, "stage": {**stage, **sizes, "accumulate": None}}


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


def _other_settings(run: RunFolder, folder: StageFolder, experiment: Experiment) -> UserError:
    names = [stage.name for stage in experiment.stages]
    place = min(folder.index, len(names)) - 1
    if folder.index <= len(names) and names[place] == folder.name:
        before, now = folder.record.get("settings", {}), settings_of(experiment, experiment.stages[place])
        changes = differences(before, now)
        what = "with other settings: " + ("; ".join(changes) or "an earlier stage differs")
    else:
        now_there = f"is {names[place]!r}" if folder.index <= len(names) else "is none"
        what = f"as stage {folder.index}, which now {now_there}"
    state = "finished" if folder.status == "finished" else "begun"
    return UserError(
        f"{run.path}: stage {folder.name!r} was {state} {what}. Go back to these, or add --from {names[place]} to "
        "train from there again, or --run.name NAME to keep both"
    )


def differences(before: Any, now: Any, key: str = "") -> list[str]:
    """Return one line for each key of two trees whose values differ: the key, what it was, what it is."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return [f"{key} was {before!r}, is {now!r}"]
    lines = []
    for name in dict.fromkeys([*before, *now]):
        if before.get(name) != now.get(name):
            lines += differences(before.get(name), now.get(name), f"{key}.{name}".lstrip("."))
    return lines
