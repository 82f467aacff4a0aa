"""How many processes this machine can hold, so that a number with too many digits does not take it down. No torch."""

from __future__ import annotations

import argparse
import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from vargpt_lightning.utils.arguments import whole
from vargpt_lightning.utils.errors import UserError

GIB = 2**30
ALWAYS = 2  # however little memory seems to be free
FLAG = "--oversubscribe"
MOST_AT_A_TIME = 1000
"""Threads that wait for an endpoint's answers."""


@dataclass(frozen=True)
class Load:
    """What one process of a kind takes at least: bytes of memory, and how many of them may share a core."""

    memory: int
    per_core: int
    few: int


TRAINING = Load(memory=GIB // 2, per_core=4, few=8)
READING = Load(memory=GIB // 8, per_core=8, few=16)


def cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory() -> int:
    """Bytes of memory that are free, also by the container's limit."""
    import psutil

    found = int(psutil.virtual_memory().available)
    with contextlib.suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text(encoding="utf-8"))
        found = min(found, max(0, limit - int((group / "memory.current").read_text(encoding="utf-8"))))
    return found


def most_processes(load: Load) -> int:
    """How many processes of a kind this machine holds."""
    by_cores = max(load.few, load.per_core * cores())
    return max(ALWAYS, min(by_cores, free_memory() // load.memory))


def check_processes(count: int, key: str, load: Load, forced: bool = False, flag: str = FLAG) -> None:
    """Refuse more processes than this machine holds, unless that is forced.

    Raises:
        UserError: naming the key, its value, how many there may be, and the flag that starts them all the same.
    """
    most = most_processes(load)
    if count > most and not forced:
        memory = free_memory() / GIB
        raise UserError(
            f"{key}={count}; expected at most {most} processes on this machine with {cores()} cores and {memory:.1f} "
            f"GiB of free memory; {flag} starts them all the same"
        )


def add_processes(parser: argparse.ArgumentParser, help: str) -> None:
    """Add `--processes N`, and the flag that allows more of them than the machine holds; see `asked_processes`."""
    parser.add_argument("--processes", type=whole(1, 100_000), default=1, metavar="N", help=help)
    parser.add_argument(FLAG, action="store_true", help="start more processes than cores and memory hold")


def asked_processes(arguments: argparse.Namespace, load: Load = READING) -> int:
    """Return the number of processes asked for; raises UserError as `check_processes` does."""
    check_processes(arguments.processes, "--processes", load, arguments.oversubscribe)
    return int(arguments.processes)


def positive(text: str) -> int:
    """Read a whole number from 1 to a million, for argparse."""
    if not text.isdecimal() or not 1 <= int(text[:20]) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a whole number from 1 to 1,000,000")
    return int(text)
