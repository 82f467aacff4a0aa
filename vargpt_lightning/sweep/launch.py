"""Workers started: some on this machine, watched until the sweep has ended, or jobs on a cluster."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vargpt_lightning.sweep.folder import ENDED, Row, SweepFolder
from vargpt_lightning.sweep.trial import GRACE
from vargpt_lightning.sweep.worker import ended_by_sigterm, thread_limits, work
from vargpt_lightning.utils.errors import UserError, install_hint

POLL = 0.5
RESTARTS = 3
LEAVES = 2  # one worker may have passed a trial over that another's death has only now set free


class LocalWorkers:
    """Worker processes on this machine.

    Args:
        count: how many work at the same time.
        gpus: the devices to share out among them, as CUDA_VISIBLE_DEVICES names them; empty leaves that as it is.

    A worker that is killed is replaced, a few times. Trials that workers have given up, for they are killed each time,
    are left for the next command.
    """

    def __init__(self, folder: SweepFolder, count: int, gpus: Sequence[str] = ()) -> None:
        self.folder, self.count, self.gpus = folder, count, list(gpus)
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._left: Counter[int] = Counter()
        self._restarts = 0

    def run(self, shown: Callable[[list[Row]], None]) -> list[Row]:
        """Work until no trial is left that can be worked on; `shown` sees the rows all the while."""
        with ended_by_sigterm():
            try:
                while True:
                    rows = self.folder.rows()
                    shown(rows)
                    self._clear()
                    open_ = [row for row in rows if row.state not in ENDED and self._left[row.number] < LEAVES]
                    free = [row for row in open_ if row.state != "running"]
                    for slot in range(min(self.count, len(free) + len(self._processes))):
                        if slot not in self._processes:
                            self._processes[slot] = self._start(slot)
                    if not open_ and not self._processes:
                        return rows
                    time.sleep(POLL)
            finally:
                self._stop()

    def _start(self, slot: int) -> subprocess.Popen[bytes]:
        environment = {**os.environ, **thread_limits(self.count)}
        if self.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self.gpus[slot % len(self.gpus)]
        command = [sys.executable, "-m", "vargpt_lightning.cli", "sweep", "worker", str(self.folder.path)]
        command += ["--lease-timeout", str(self.folder.lease_timeout)]
        guard = [sys.executable, "-m", "vargpt_lightning.sweep.guard", str(os.getpid())]
        with open(self._log(slot), "a", encoding="utf-8") as log:
            return subprocess.Popen(
                [*guard, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment
            )

    def _log(self, slot: int) -> Path:
        file = self.folder.path / "logs" / f"worker-{socket.gethostname()}-{slot}.log"
        file.parent.mkdir(parents=True, exist_ok=True)
        return file

    def _clear(self) -> None:
        """Forget the workers that have ended, and remember what they left behind."""
        for slot, process in list(self._processes.items()):
            code = process.poll()
            if code is None:
                continue
            del self._processes[slot]
            if code == 0:
                self._left.update(row.number for row in self.folder.rows() if row.state == "interrupted")
                continue
            self._restarts += 1
            if self._restarts > RESTARTS * self.count or 0 < code < 128:
                said = self._log(slot).read_text(encoding="utf-8", errors="replace").strip().splitlines()
                raise UserError(f"a worker ended with exit code {code}: {(said or ['it said nothing'])[-1]}")

    def _stop(self) -> None:
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        for process in self._processes.values():
            try:
                process.wait(GRACE + 10)
            except subprocess.TimeoutExpired:
                process.kill()


def submit(folder: SweepFolder, count: int, cluster: str, options: Mapping[str, Any]) -> list[str]:
    """Hand workers to a cluster through submitit; return the jobs' numbers.

    Args:
        cluster: "slurm", or "local" for processes of this machine that outlive the command.
        options: submitit's parameters, such as timeout_min, gpus_per_node, slurm_partition.

    Raises:
        UserError: submitit is not installed, or refuses an option.
    """
    try:
        import submitit
    except ImportError as error:
        raise UserError(f"submitit is not installed; {install_hint('sweeps')}") from error
    logs = folder.path / "logs" / "submitit"
    try:
        executor = submitit.AutoExecutor(folder=logs, cluster=cluster)
        executor.update_parameters(name=f"sweep-{folder.sweep.name}", **options)
        with executor.batch():
            jobs = [
                executor.submit(_work_there, str(folder.path.resolve()), folder.lease_timeout) for _ in range(count)
            ]
    except (RuntimeError, NameError, TypeError, ValueError, AssertionError) as error:
        raise UserError(f"submitit refuses cluster={cluster}, {dict(options)}: {error}") from error
    return [str(job.job_id) for job in jobs]


def _work_there(path: str, lease_timeout: float) -> int:
    return work(SweepFolder(path, lease_timeout))


def changes(rows: Sequence[Row], before: dict[str, str]) -> Iterator[Row]:
    """Yield the rows whose state is another than before, and remember it."""
    for row in rows:
        if before.get(row.key, "waiting") != row.state:
            before[row.key] = row.state
            yield row
