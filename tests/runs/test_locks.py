"""File locks: one owner at a time, and none that a dead process keeps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from vargpt_lightning.runs import locks
from vargpt_lightning.runs.folder import now
from vargpt_lightning.runs.locks import LeaseLock, owner


def test_a_lock_has_one_owner_until_it_is_given_back(tmp_path: Path) -> None:
    first = LeaseLock.acquire(tmp_path / "a")
    assert first is not None and LeaseLock.acquire(tmp_path / "a") is None
    assert owner(tmp_path / "a")["processes"][0][0] == os.getpid()  # type: ignore[index]
    first.release()
    assert owner(tmp_path / "a") is None
    second = LeaseLock.acquire(tmp_path / "a")
    assert second is not None and second.number == 2
    second.release()


def test_of_many_that_come_at_once_one_wins(tmp_path: Path) -> None:
    won: list[LeaseLock] = []
    start = threading.Barrier(8)

    def come() -> None:
        start.wait()
        if lock := LeaseLock.acquire(tmp_path / "a"):
            won.append(lock)

    threads = [threading.Thread(target=come) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    won[0].release()


def test_what_a_killed_process_held_is_free_at_once(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from vargpt_lightning.runs.locks import LeaseLock\n"
        "lock = LeaseLock.acquire(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "a")], stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == b"held\n"
    assert LeaseLock.acquire(tmp_path / "a") is None
    child.kill()
    child.wait()
    child.stdout.close()
    taken = LeaseLock.acquire(tmp_path / "a")
    assert taken is not None and taken.number == 2
    taken.release()


def test_a_claim_holds_as_long_as_a_child_lives(tmp_path: Path) -> None:
    """A worker that was killed may leave a trial behind; nobody starts it a second time beside it."""
    with subprocess.Popen(["sleep", "60"]) as child:
        content = {"host": "x", "machine": locks._machine(), "processes": [[2**22 + 1, now()], [child.pid, now()]]}
        (tmp_path / "claim-0001").write_text(json.dumps(content))
        assert LeaseLock.acquire(tmp_path) is None
        child.kill()
    taken = LeaseLock.acquire(tmp_path)
    assert taken is not None
    taken.release()


def test_another_machines_lock_is_free_after_its_lease(tmp_path: Path) -> None:
    file = tmp_path / "claim-0001"
    file.write_text(json.dumps({"host": "far", "machine": "far away", "processes": [[os.getpid(), now()]]}))
    assert LeaseLock.acquire(tmp_path, lease_timeout=60) is None
    assert owner(tmp_path, lease_timeout=60)["host"] == "far"  # type: ignore[index]
    os.utime(file, (time.time() - 61, time.time() - 61))
    taken = LeaseLock.acquire(tmp_path, lease_timeout=60)
    assert taken is not None
    taken.release()


def test_a_holder_touches_its_claim_and_learns_that_it_lost_it(tmp_path: Path) -> None:
    lock = LeaseLock.acquire(tmp_path, lease_timeout=0.3)
    assert lock is not None
    os.utime(lock.file, (1, 1))
    deadline = time.monotonic() + 20
    while lock.file.stat().st_mtime < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert lock.file.stat().st_mtime > 2 and not lock.lost
    (tmp_path / "claim-0002").write_text("{}")
    assert lock.lost
    lock.release()


@pytest.mark.parametrize("text", ["", "[", "[]"])
def test_a_claim_that_cannot_be_read_is_waited_for(tmp_path: Path, text: str) -> None:
    (tmp_path / "claim-0001").write_text(text)
    assert LeaseLock.acquire(tmp_path, lease_timeout=60) is None
