"""`vargpt fit`: an experiment's stages one after the other, each of them resumable; then evaluation and report."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from vargpt_lightning.results import RunFolder

if TYPE_CHECKING:  # the sub-command's help must not wait for torch
    from vargpt_lightning.commands.experiment import Experiment


def main(argv: list[str]) -> int:
    """Train, evaluate, report; return the exit code: 0 finished, 128 + signal when stopped by one."""
    from vargpt_lightning.commands.experiment import build_parser, load_experiment

    if not argv:
        build_parser().print_help()
        return 2
    return run_experiment(load_experiment(argv), ["vargpt", "fit", *argv])


def run_experiment(experiment: Experiment, command: list[str]) -> int:
    """Run an experiment in its folder, going on where an earlier attempt stopped; return the exit code.

    Raises:
        UserError: what the folder has does not belong to the experiment, or something in it cannot be used.
    """
    from vargpt_lightning.callbacks.run_record import run_status
    from vargpt_lightning.commands.finished_stages import check_folder
    from vargpt_lightning.commands.quiet import quiet_lightning

    path = Path(experiment.run.root) / str(experiment.run.name)
    check_folder(path, experiment)
    run = RunFolder.start(
        path,
        command=command,
        config=experiment.files[-1] if experiment.files else None,
        config_text=experiment.resolved,
        seed=experiment.seed,
    )
    run.update(stage_count=len(experiment.stages))
    print(f"run: {run.path}", flush=True)
    with run_status(run), quiet_lightning(), ended_by_signals():
        if code := _train_and_evaluate(experiment, run):
            run.end("interrupted")
            return code
    if run.report.exists():
        from vargpt_lightning.evaluation.report import build_report

        build_report(run)  # again: only now does the run's record say that it has finished
    pages = {"report": run.report, "benchmarks": run.benchmark_report}
    lines = [f"finished: {run.path}", *(f"{name}: {page}" for name, page in pages.items() if page.exists())]
    print("\n".join(lines), flush=True)
    return 0


def _train_and_evaluate(experiment: Experiment, run: RunFolder) -> int:
    from vargpt_lightning.commands.stage_runner import StageRunner

    if code := StageRunner(experiment, run).all_stages():
        return code
    if experiment.evaluation.enabled:
        from vargpt_lightning.commands.final_evaluation import evaluate_run

        evaluate_run(experiment, run)
    return 0


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """End the block with SystemExit 143 on SIGTERM, so that the run's record says how it ended; SIGINT stays SIGINT.

    While batches are trained, GracefulStop is in charge instead.
    """
    if threading.current_thread() is not threading.main_thread():  # Python allows handlers nowhere else
        yield
        return
    previous = signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning makes exit code 1 of it
            raise KeyboardInterrupt from stop
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)


def _exit(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
