"""An experiment run in its folder: processes counted, stages trained, the result evaluated and reported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vargpt_lightning.distributed.group import Processes
from vargpt_lightning.runs.folder import RunFolder
from vargpt_lightning.training.launch import local_processes, one_of_several, started_by_others
from vargpt_lightning.utils.capacity import READING, TRAINING, check_processes
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.signals import ended_by_signals

if TYPE_CHECKING:  # refusals must not wait for torch
    from vargpt_lightning.experiment.schema import Experiment

OVERSUBSCRIBE = "--trainer.oversubscribe true"
LOST_CONNECTION = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Socket closed")


def processes_here(experiment: Experiment) -> int:
    """Return how many processes to start on this machine; 1 where this is already one of several."""
    settings = experiment.trainer
    if settings.num_nodes > 1 and not one_of_several():
        raise UserError(
            f"trainer.num_nodes={settings.num_nodes}: several machines want torchrun or srun, which start the "
            "processes; see docs/scale.md"
        )
    if started_by_others() or settings.strategy == "single" or settings.devices in (1, "1"):
        return 1
    if settings.accelerator == "cpu" and settings.devices == "auto":
        return 1
    from vargpt_lightning.training.trainer import make_trainer

    trainer = make_trainer(settings, enable_checkpointing=False)
    count = int(trainer.num_devices)
    if trainer.strategy.root_device.type == "cpu":  # of GPUs Lightning takes no more than there are
        check_processes(count, "trainer.devices", TRAINING, settings.oversubscribe, OVERSUBSCRIBE)
    return count


def check_readers(experiment: Experiment, count: int) -> None:
    """Refuse more processes that read data than this machine holds, of all training processes together."""
    workers = experiment.data.workers
    if workers:
        forced = experiment.trainer.oversubscribe
        local = max(count, local_processes())
        key = "data.workers" if local == 1 else f"data.workers={workers} of {local} training processes together"
        check_processes(workers * local, key, READING, forced, OVERSUBSCRIBE)


def run_experiment(experiment: Experiment, command: list[str]) -> int:
    """Run an experiment in its folder, going on where an earlier attempt stopped; return the exit code.

    Raises:
        UserError: what the folder has does not belong to the experiment, or something in it cannot be used.
    """
    from vargpt_lightning.callbacks.run_record import run_status
    from vargpt_lightning.training.console import quiet_lightning
    from vargpt_lightning.training.trainer import join

    with quiet_lightning():
        processes = join(experiment.trainer)
    path = Path(experiment.run.root) / str(experiment.run.name)
    if not processes.first:
        with quiet_lightning(), ended_by_signals(), others_named():
            processes.wait()  # the first one opens the folder
            return train_stages(experiment, RunFolder(path), processes)
    run = start_run(path, experiment, command, processes)
    print(f"run: {run.path}", flush=True)
    processes.wait()
    with run_status(run), quiet_lightning(), ended_by_signals(), others_named():
        if code := _train_and_evaluate(experiment, run, processes):
            run.end("interrupted")
            return code
    if run.report.exists():
        from vargpt_lightning.evaluation.reports.report import build_report

        build_report(run)  # again: only now does the run's record say that it has finished
    pages = {"report": run.report, "benchmarks": run.benchmark_report}
    lines = [f"finished: {run.path}", *(f"{name}: {page}" for name, page in pages.items() if page.exists())]
    print("\n".join(lines), flush=True)
    return 0


def start_run(path: Path, experiment: Experiment, command: list[str], processes: Processes) -> RunFolder:
    """Record that an experiment is trained in a folder, or resumed there; called by the first process.

    Raises:
        UserError: what the folder has does not belong to the experiment.
    """
    from vargpt_lightning.training.resume import alone, check_folder

    with alone(path):
        check_folder(path, experiment, processes.world)
        run = RunFolder.start(
            path,
            command=command,
            config=experiment.files[-1] if experiment.files else None,
            config_text=experiment.resolved,
            seed=experiment.seed,
        )
        run.update(stage_count=len(experiment.stages))
    return run


def train_stages(experiment: Experiment, run: RunFolder, processes: Processes) -> int:
    """Train all stages, and leave the group of processes: what follows is the first one's alone.

    Returns 0, or the exit code of a stop by a signal.
    """
    from vargpt_lightning.training.runner import StageRunner
    from vargpt_lightning.training.trainer import leave

    code = StageRunner(experiment, run, processes).all_stages()
    leave(processes)
    return code


def _train_and_evaluate(experiment: Experiment, run: RunFolder, processes: Processes) -> int:
    if code := train_stages(experiment, run, processes):
        return code
    if experiment.evaluation.enabled:
        from vargpt_lightning.training.final_evaluation import evaluate_run

        evaluate_run(experiment, run)
    return 0


@contextmanager
def others_named() -> Iterator[None]:
    """Say in one line that another process is gone, in place of what the exchange between them reports.

    Raises:
        UserError: for such a report.
    """
    try:
        yield
    except RuntimeError as error:
        sign = next((sign for sign in LOST_CONNECTION if sign in str(error)), None)
        if sign is None or isinstance(error, UserError):
            raise
        raise UserError(
            f"another process of this run has ended ({sign}); the same command resumes from the last checkpoint"
        ) from error
