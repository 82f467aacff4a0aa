"""A `vargpt` command in a process of its own that sends itself a signal at a given place."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.forks import start


@dataclass(frozen=True)
class Place:
    """Where the process sends itself the signal.

    `moment` is "batch" (before a batch is trained), "checkpoint" (half of it is written), "validation", "sheet" (the
    samples at the end), "weights" (before they are written), "finished" (before the stage is said to be), "data" (while
    a stage's data are prepared) or "evaluation"; `step` counts the optimizer steps taken, for the first two.
    """

    stage: str
    moment: str
    step: int = 0

    def __str__(self) -> str:
        return f"{self.stage}-{self.moment}-{self.step}"


def run(arguments: list[str], log: Path, place: Place | None = None, number: int = 0, **environment: str) -> int:
    """Run `vargpt` with the arguments; return its exit code, negative for the signal that killed it.

    What it prints goes to `log`.
    """
    process = start(log, _main, arguments, place, number, **environment)
    process.join(timeout=300)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(f"vargpt {arguments}: still at work after 300 s; {log.read_text()[-500:]}")
    code: int = process.exitcode
    return code


def _main(arguments: list[str], place: Place | None, number: int) -> int:
    from vargpt_lightning.cli import main

    if place is not None:
        _prepare(place, lambda: os.kill(os.getpid(), number))
    return main(arguments)


def _prepare(place: Place, end: Callable[[], None]) -> None:
    """Put the signal at its place."""
    import torch

    from vargpt_lightning.callbacks.batch_rng import BatchRng
    from vargpt_lightning.callbacks.samples import SampleGrids
    from vargpt_lightning.modules.base import StageModule
    from vargpt_lightning.runs.folder import StageFolder
    from vargpt_lightning.training import final_evaluation, weights
    from vargpt_lightning.training.data.stage_data import StageData

    now = {"stage": "", "step": -1}

    def before(owner: Any, name: str, when: Callable[..., bool]) -> None:
        """End just before a function is called, when it is called as wanted."""
        called = getattr(owner, name)

        def wrapped(*args: Any, **keywords: Any) -> Any:
            if when(*args, **keywords):
                end()
            return called(*args, **keywords)

        setattr(owner, name, wrapped)

    def follow(callback: Any, trainer: Any, *rest: Any) -> bool:
        now["stage"], now["step"] = callback.stage, trainer.global_step
        return place.moment == "batch" and (place.stage, place.step) == (callback.stage, trainer.global_step)

    def tear(checkpoint: Any, file: Any, *rest: Any) -> bool:
        wanted = now["stage"] == place.stage and checkpoint.get("global_step") == place.step
        if wanted:
            file.write(b"PK\x03\x04 half of it")
            file.flush()
        return wanted

    here = {
        "checkpoint": (torch, "save", tear),
        "validation": (StageModule, "on_validation_start", lambda *args: now["stage"] == place.stage),
        "sheet": (SampleGrids, "_write", lambda sheets, *args: sheets.title == place.stage),
        "weights": (weights, "save_weights", lambda model, folder, *args: folder.name == place.stage),
        "finished": (
            StageFolder,
            "update",
            lambda folder, **fields: folder.name == place.stage and fields.get("status") == "finished",
        ),
        "data": (StageData, "prepare", lambda data, model, stage: stage.name == place.stage),
        "evaluation": (final_evaluation, "collect", lambda *args: True),
    }
    before(BatchRng, "on_train_batch_start", follow)
    if place.moment != "batch":
        before(*here[place.moment])
