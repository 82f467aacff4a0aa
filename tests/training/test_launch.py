"""Processes started, asked to end and ended together; the processes here are small scripts, not trainings."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vargpt_lightning.training import launch as module

STUB = """
import os, signal, sys, time
rank = int(os.environ["RANK"])
open(sys.argv[1] + f"/{rank}", "w").write(str(os.getpid()))
what = sys.argv[2 + rank]
if what == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
elif what == "wait":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    time.sleep(60)
elif what == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(60)
sys.exit(int(what))
"""


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What stands for `python -m vargpt_lightning.cli`."""
    (tmp_path / "stub.py").write_text(STUB)
    popen = subprocess.Popen

    def start(command: list[str], **keywords: object) -> object:
        assert command[:3] == [sys.executable, "-m", "vargpt_lightning.cli"]
        return popen([sys.executable, str(tmp_path / "stub.py"), *command[3:]], **keywords)  # type: ignore[call-overload]

    monkeypatch.setattr(module.subprocess, "Popen", start)
    return [str(tmp_path)]


def gone(folder: Path) -> bool:
    return all(not Path(f"/proc/{(folder / str(rank)).read_text()}").exists() for rank in range(2))


def test_all_that_end_well_end_the_command_well(stub: list[str]) -> None:
    assert module.launch([*stub, "0", "0"], 2) == 0


def test_a_killed_process_ends_the_others_with_a_message(
    stub: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "GRACE", 0.3)
    began = time.monotonic()
    assert module.launch([*stub, "deaf", "kill"], 2) == 128 + signal.SIGKILL
    assert time.monotonic() - began < 20 and gone(tmp_path)
    said = capfd.readouterr().err
    assert "process 1 of 2 was killed by SIGKILL" in said and "resumes from the last checkpoint" in said


def test_a_process_that_has_said_what_is_wrong_is_not_talked_over(
    stub: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "GRACE", 0.3)
    assert module.launch([*stub, "2", "wait"], 2) == 2
    assert capfd.readouterr().err == ""


def test_a_signal_reaches_all_and_gives_the_code_that_schedulers_requeue(stub: list[str], tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(module.launch([*stub, "wait", "wait"], 2))
    while not ((tmp_path / "0").exists() and (tmp_path / "1").exists()):
        time.sleep(0.02)
    time.sleep(0.5)
    os.kill(pid, signal.SIGTERM)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 143 and gone(tmp_path)


@pytest.mark.parametrize(
    ("variables", "several"),
    [
        ({}, False),
        ({"TORCHELASTIC_RUN_ID": "x"}, True),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, True),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, False),
    ],
)
def test_processes_that_others_start_are_known(
    variables: dict[str, str], several: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*module.STARTED_BY_OTHERS, "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert module.started_by_others() is several


def test_a_process_whose_starter_is_gone_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(module.PARENT, str(os.getppid() + 1))
    ended: list[int] = []
    asked: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    try:
        module.end_with_parent(patience=0.01, end=ended.append)
        end = time.monotonic() + 10
        while not ended and time.monotonic() < end:
            time.sleep(0.01)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert asked == [signal.SIGTERM] and ended == [1]
