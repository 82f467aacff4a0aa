"""Processes that read batches ahead end with the training process, however that ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CODE = """
import multiprocessing, os, sys, time
from vargpt_lightning.data.packing.pool import end_with_parent

def work(file):
    end_with_parent()
    with open(file, "a") as out:
        out.write(f"{os.getpid()}\\n")
    time.sleep(100)

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    for _ in range(2):
        context.Process(target=work, args=(sys.argv[2],), daemon=True).start()
    time.sleep(100)
"""


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_nobody_is_left_behind(method: str, tmp_path: Path) -> None:
    script, file = tmp_path / "script.py", tmp_path / "started"
    script.write_text(CODE)
    root = Path(__file__).resolve().parents[3]
    environment = os.environ | {"PYTHONPATH": str(root)}
    process = subprocess.Popen([sys.executable, str(script), method, str(file)], env=environment)
    wait_for(lambda: file.is_file() and len(file.read_text().split()) == 2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    started = [int(number) for number in file.read_text().split()]
    wait_for(lambda: not any(alive(number) for number in started))


def alive(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(ready: object) -> None:
    deadline = time.monotonic() + 60
    while not ready():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)
