"""Real processes, really killed: the same command resumes, and no finished trial is run again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.sweep.conftest import starts
from vargpt_lightning.sweep.folder import SweepFolder
from vargpt_lightning.sweep.worker import work

Planned = Callable[..., SweepFolder]
PATIENCE = 60.0


def start(*arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "vargpt_lightning.cli", "sweep", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def wait_for(what: Callable[[], object], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def started_pids(folder: SweepFolder) -> list[int]:
    file = folder.path / "started.txt"
    return [int(line.split()[1]) for line in file.read_text().splitlines()] if file.exists() else []


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_killed_trial_is_started_again_and_one_that_always_dies_is_left(planned: Planned) -> None:
    folder = planned(variants={"once": {"fake.kill": 1}, "always": {"fake.kill": 99}, "never": {}})
    work(folder)
    rows = {row.name: row.state for row in folder.rows()}
    assert rows == {"once-seed0": "finished", "always-seed0": "interrupted", "never-seed0": "finished"}
    assert Counter(starts(folder)) == {"once-seed0": 2, "always-seed0": 2, "never-seed0": 1}


def test_a_killed_worker_takes_its_trial_with_it_and_the_next_one_goes_on(planned: Planned) -> None:
    folder = planned(overrides={"fake.seconds": 0.0}, variants={"slow": {"fake.seconds": 60}, "quick": {}})
    worker = start("worker", str(folder.path))
    wait_for(lambda: started_pids(folder))
    worker.kill()
    worker.wait()
    wait_for(lambda: gone(started_pids(folder)[0]))
    assert [row.state for row in folder.rows()] == ["interrupted", "waiting"]
    experiment = folder.experiment("slow-seed0")
    experiment.write_text(experiment.read_text().replace("seconds: 60", "seconds: 0"))
    work(folder)
    assert [row.state for row in folder.rows()] == ["finished", "finished"]
    assert starts(folder) == ["slow-seed0", "slow-seed0", "quick-seed0"]


def test_a_killed_sweep_leaves_nothing_behind_and_the_same_command_goes_on(
    sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    file = sweep_file(overrides={"fake.seconds": 0.3}, grid={"fake.cfg": [1.0, 2.0, 3.0]}, seeds=2)
    arguments = (str(file), "--workers", "2", "--root", str(tmp_path / "sweeps"))
    first = start(*arguments)
    plan = tmp_path / "sweeps" / "s" / "plan.json"
    wait_for(plan.is_file)
    folder = SweepFolder(plan.parent)
    wait_for(lambda: any(row.state == "finished" for row in folder.rows()))
    children = psutil.Process(first.pid).children(recursive=True)
    first.kill()
    first.wait()
    wait_for(lambda: all(gone(child.pid) for child in children))
    done = {row.name for row in folder.rows() if row.state == "finished"}
    before = starts(folder)
    assert start(*arguments).wait(240) == 0
    assert all(row.state == "finished" for row in folder.rows())
    assert not done & set(starts(folder)[len(before) :]), "finished trials are never run again"
    assert len({row.name for row in folder.rows()}) == 6


def test_a_worker_that_is_asked_to_end_gives_its_trial_back(planned: Planned) -> None:
    folder = planned(overrides={"fake.seconds": 60})
    worker = start("worker", str(folder.path))
    wait_for(lambda: started_pids(folder))
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(120) == 128 + signal.SIGTERM
    assert gone(started_pids(folder)[0])
    assert [row.state for row in folder.rows()] == ["interrupted"]
    assert list((folder.path / "claims" / "0000").glob("*.released"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks the kernel")
def test_a_program_ends_with_the_process_that_started_it() -> None:
    guard = [sys.executable, "-m", "vargpt_lightning.sweep.guard"]
    late = subprocess.run([*guard, str(os.getpid() + 1), "sleep", "60"], check=False, timeout=60)
    assert late.returncode == 128 + signal.SIGTERM, "its parent was gone before it could ask"
