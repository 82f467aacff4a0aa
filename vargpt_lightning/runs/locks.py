"""File locks with a lease, for processes on several machines that share a folder: none outlives its owner.

    <folder>/claim-0001            JSON: host, process numbers, when it was taken
    <folder>/claim-0001.released   the same, given back
    <folder>/claim-0002            the next owner's

The highest number counts. A lock whose owner has died is taken over by making the next number, which only one process
can do; nothing is ever removed from under another, so that two that come at the same moment cannot both win. On one
machine an owner is dead when its processes are gone; of another machine one is when it has not touched its lock for
`lease_timeout` seconds, by the clock of the folder.

filelock serves where one machine is meant. Its leases know one owner process, while a trial's lock must hold as long as
the training process that a dead worker left behind, and be free at once when that has ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from vargpt_lightning.runs.folder import now
from vargpt_lightning.runs.provenance import is_alive
from vargpt_lightning.utils.files import write_json

LEASE_TIMEOUT = 120.0  # seconds
NAME = re.compile(r"claim-(\d{4,})(\.released)?")


class LeaseLock:
    """A lock that this process owns; use `acquire`, and `release` or a `with` block to give it back."""

    def __init__(self, folder: Path, number: int, lease_timeout: float) -> None:
        self.folder, self.number, self.lease_timeout = folder, number, lease_timeout
        self._processes = [(os.getpid(), now())]
        self._done = threading.Event()
        threading.Thread(target=self._touch, daemon=True).start()

    @classmethod
    def acquire(cls, folder: Path, lease_timeout: float = LEASE_TIMEOUT) -> LeaseLock | None:
        """Take the lock of a folder, made if need be; None while another owns it."""
        folder.mkdir(parents=True, exist_ok=True)
        number, released = _highest(folder)
        if number and not released and _is_held(folder, number, lease_timeout):
            return None
        text = json.dumps(_content([(os.getpid(), now())]))
        if not _create(_file(folder, number + 1), text):
            return None  # another was quicker
        return cls(folder, number + 1, lease_timeout)

    @property
    def file(self) -> Path:
        return _file(self.folder, self.number)

    @property
    def lost(self) -> bool:
        """Whether another has taken over, which took this process for dead."""
        return _highest(self.folder)[0] != self.number

    def add_process(self, pid: int) -> None:
        """Hold the lock as long as this process, a child's, is alive as well."""
        self._processes.append((pid, now()))
        write_json(self.file, _content(self._processes))

    def release(self) -> None:
        """Give the lock back."""
        self._done.set()
        with contextlib.suppress(FileNotFoundError):
            self.file.rename(self.file.with_name(f"{self.file.name}.released"))

    def __enter__(self) -> LeaseLock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()

    def _touch(self) -> None:
        while not self._done.wait(self.lease_timeout / 6):
            with contextlib.suppress(OSError):
                os.utime(self.file)


def owner(folder: Path, lease_timeout: float = LEASE_TIMEOUT) -> dict[str, Any] | None:
    """What the owner of a folder's lock has written, None when nobody alive owns it."""
    number, released = _highest(folder)
    if not number or released or not _is_held(folder, number, lease_timeout):
        return None
    return _read(_file(folder, number)) or {"host": "unknown"}


def _file(folder: Path, number: int) -> Path:
    return folder / f"claim-{number:04d}"


def _highest(folder: Path) -> tuple[int, bool]:
    """The highest number there is, 0 for none, and whether it was given back."""
    found = list(_numbers(folder))
    return max(found) if found else (0, True)


def _numbers(folder: Path) -> Iterator[tuple[int, bool]]:
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(folder):
            if match := NAME.fullmatch(name):
                yield int(match[1]), match[2] is not None


def _is_held(folder: Path, number: int, lease_timeout: float) -> bool:
    file = _file(folder, number)
    content = _read(file)
    if content and content.get("machine") == _machine():
        return any(is_alive(pid, since) for pid, since in content.get("processes", []))
    try:
        return _clock(folder) - file.stat().st_mtime < lease_timeout
    except FileNotFoundError:
        return False  # given back this very moment


def _read(file: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        content = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            return content
    return {}


def _content(processes: list[tuple[int, str]]) -> dict[str, Any]:
    return {"host": socket.gethostname(), "machine": _machine(), "processes": processes}


def _machine() -> str:
    """This machine and its process numbers: hosts may share a name, and containers a machine."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _create(file: Path, text: str) -> bool:
    """Make a file whole, unless it is there already, or was and was given back."""
    temporary = file.with_name(f".{file.name}.{socket.gethostname()}.{os.getpid()}.{threading.get_ident()}")
    temporary.write_text(text, encoding="utf-8")
    try:
        os.link(temporary, file)
    except FileExistsError:
        return False
    except OSError:  # a file system without links: whole or not, only one process can make it
        try:
            with open(file, "x", encoding="utf-8") as out:
                out.write(text)
        except FileExistsError:
            return False
    finally:
        temporary.unlink(missing_ok=True)
    if file.with_name(f"{file.name}.released").exists():
        file.unlink(missing_ok=True)  # it came and went between the look and the link
        return False
    return True


def _clock(folder: Path) -> float:
    """The folder's own time, which on a shared one is not this machine's."""
    probe = folder / f".clock.{socket.gethostname()}.{os.getpid()}"
    probe.touch()
    os.utime(probe)
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)
