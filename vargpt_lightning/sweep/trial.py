"""One trial: the ordinary command in a process of its own, watched until it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vargpt_lightning.runs.folder import RunFolder
from vargpt_lightning.sweep.folder import SweepFolder, Taken
from vargpt_lightning.sweep.measures import read_measures, stage_values
from vargpt_lightning.sweep.spec import DEFAULT_PROGRAM
from vargpt_lightning.utils.errors import UserError

POLL = 0.2
GRACE = 120.0  # a stage saves a checkpoint when it is asked to end
LOST_CHECK = 10.0
ERROR_LENGTH = 500


@dataclass(frozen=True)
class Outcome:
    """How a trial's process ended: finished, failed, pruned or interrupted; with its figures or its error."""

    state: str
    measures: dict[str, float]
    error: str = ""
    seconds: float = 0.0


class TrialProcess:
    """The process of a trial. `watch` returns when it has ended; an exception there stops it first."""

    def __init__(self, folder: SweepFolder, taken: Taken, environment: Mapping[str, str] | None = None) -> None:
        self.folder, self.taken = folder, taken
        self.environment = {**os.environ, **(environment or {})}
        self.log = folder.log(taken.name)
        self._reported = -1

    def command(self) -> list[str]:
        """The trial's command line."""
        program = list(self.folder.sweep.program)
        if tuple(program) == DEFAULT_PROGRAM:
            program = [sys.executable, "-m", "vargpt_lightning.cli", "fit"]
        trials = self.folder.run(self.taken.name).parent.resolve()
        reuse = ", ".join(f'"{path}"' for path in [str(trials), *self.folder.reuse()])
        experiment = self.folder.experiment(self.taken.name).resolve()
        place = ["--run.root", str(trials), "--run.name", self.taken.name, "--run.reuse", f"[{reuse}]"]
        return [*program, "-c", str(experiment), *place]

    def watch(self) -> Outcome:
        """Run the command to its end."""
        began = time.monotonic()
        if self._finished_before():
            return self._measured(0.0)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        command = self.command()
        with open(self.log, "a", encoding="utf-8") as log:
            start = log.tell()
            log.write(f"$ {' '.join(command)}\n")
            log.flush()
            guard = [sys.executable, "-m", "vargpt_lightning.sweep.guard", str(os.getpid())]
            process = subprocess.Popen(
                [*guard, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
                cwd=self._cwd(),
            )
            self.taken.lock.add_process(process.pid)
            try:
                pruned = self._until_end(process)
            finally:
                _stop(process)
        return self._outcome(process.returncode, pruned, start, time.monotonic() - began)

    def _finished_before(self) -> bool:
        """Whether an earlier process finished the run, and its worker was killed before it could say so."""
        with contextlib.suppress(UserError):
            return not self.taken.again and RunFolder(self.folder.run(self.taken.name)).status == "finished"
        return False

    def _cwd(self) -> str | None:
        """Where the sweep was planned, for the paths in the experiments are relative to it."""
        planned = self.folder.plan.get("cwd")
        return planned if planned and Path(planned).is_dir() else None

    def _until_end(self, process: subprocess.Popen[bytes]) -> bool:
        """Wait for the end; True when the pruner has stopped the trial."""
        look = LOST_CHECK / POLL
        for count in range(sys.maxsize):
            try:
                process.wait(POLL)
                return False
            except subprocess.TimeoutExpired:
                pass
            if count % look == look - 1 and self.taken.lock.lost:
                raise UserError(
                    f"{self.taken.name}: another worker took it, because this one sent no heartbeat for too long"
                )
            if self.folder.sweep.prune and self._prune():
                return True
        return False

    def _prune(self) -> bool:
        prune = self.folder.sweep.prune
        assert prune is not None
        for step, value in stage_values(self.folder.run(self.taken.name), prune.stage, prune.metric):
            if step > self._reported:
                self._reported = step
                if self.folder.report(self.taken.number, step, value):
                    return True
        return False

    def _outcome(self, code: int, pruned: bool, start: int, seconds: float) -> Outcome:
        if pruned:
            return Outcome("pruned", {}, f"pruned at step {self._reported}", seconds)
        if code == 0:
            return self._measured(seconds)
        number = -code if code < 0 else code - 128
        if code < 0 or number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(ValueError):
                return Outcome("interrupted", {}, f"ended by {signal.Signals(number).name}", seconds)
        return Outcome("failed", {}, _last_words(self.log, start) or f"exit code {code}", seconds)

    def _measured(self, seconds: float) -> Outcome:
        """Without its aim a trial has failed; another figure may be missing, as the KID of a run that drew nothing."""
        measures = self.folder.sweep.measures
        found, missing = read_measures(self.folder.run(self.taken.name), measures)
        return Outcome("finished" if measures[0].name in found else "failed", found, missing, seconds)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Let the process end by itself, with its checkpoint; kill it when it does not."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _last_words(log: Path, start: int) -> str:
    """The error that a process wrote last: the line of `vargpt: error:`, or the last line there is."""
    with open(log, encoding="utf-8", errors="replace") as file:
        file.seek(start)
        lines = [line.strip() for line in file.read().splitlines()[1:] if line.strip()]
    errors = [line.partition("vargpt: error: ")[2] for line in lines if "vargpt: error: " in line]
    said = (errors or lines or [""])[-1]
    return said if len(said) <= ERROR_LENGTH else f"{said[:ERROR_LENGTH]} ..."
