"""All stages of an experiment from Python, as `vargpt fit` trains them."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from vargpt_lightning.callbacks.run_record import run_status
from vargpt_lightning.experiment.schema import Experiment
from vargpt_lightning.runs.folder import RunFolder
from vargpt_lightning.training.console import quiet_lightning
from vargpt_lightning.training.experiment_run import others_named, start_run, train_stages
from vargpt_lightning.training.trainer import join


def fit_stages(experiment: Experiment, folder: str | Path | None = None) -> RunFolder:
    """Train what a run's folder lacks of an experiment's stages, each a fit of its own; return the folder.

    Nothing is evaluated. Called again after an interruption, it resumes from the last checkpoint.

    Args:
        folder: of the run; None takes the experiment's `run.root`/`run.name`.

    Raises:
        UserError: what the folder has does not belong to the experiment.
        KeyboardInterrupt: a signal has stopped the training, after a checkpoint.
    """
    path = Path(experiment.run.root) / str(experiment.run.name) if folder is None else Path(folder)
    with quiet_lightning(), others_named():
        processes = join(experiment.trainer)
        if processes.first:
            start_run(path, experiment, ["fit_stages"], processes)
        processes.wait()
        run = RunFolder(path)
        with run_status(run) if processes.first else nullcontext():
            if train_stages(experiment, run, processes):
                raise KeyboardInterrupt(f"{path}: stopped by a signal; the same call resumes")
    return run
