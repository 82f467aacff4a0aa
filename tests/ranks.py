"""Several processes of one run on this machine's CPU."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.forks import start


def run_ranks(count: int, log: Path, function: Callable[..., Any], *arguments: Any, seconds: float = 120) -> list[int]:
    """Call a function in `count` processes with the variables that torchrun sets; return their exit codes.

    A function's number is its process's exit code. What the processes print goes to `log`, one file a process.
    """
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    processes = []
    for rank in range(count):
        variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "GROUP_RANK": 0}
        variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "tests"}
        environment = {name: str(value) for name, value in variables.items()}
        processes.append(start(Path(f"{log}-{rank}"), function, *arguments, **environment))
    end = time.monotonic() + seconds
    for process in processes:
        process.join(timeout=max(0.0, end - time.monotonic()))
    codes = [process.exitcode for process in processes]
    if None in codes:
        for process in processes:
            process.kill()
        raise TimeoutError(f"processes {codes} after {seconds} s; {said(log, count)[-2000:]}")
    return codes


def said(log: Path, count: int) -> str:
    """What all processes have printed."""
    return "\n".join(Path(f"{log}-{rank}").read_text() for rank in range(count))
