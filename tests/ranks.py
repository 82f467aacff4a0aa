"""Several processes of one run on this machine's CPU, forked from one that has imported everything already."""

from __future__ import annotations

import gc
import multiprocessing
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.ends import PRELOADED


def run_ranks(count: int, log: Path, function: Callable[..., Any], *arguments: Any, seconds: float = 120) -> list[int]:
    """Call a function in `count` processes with the variables that torchrun sets; return their exit codes.

    A function's number is its process's exit code. What the processes print goes to `log`, one file a process.
    """
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    processes = []
    for rank in range(count):
        variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "GROUP_RANK": 0}
        variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "tests"}
        environment = {name: str(value) for name, value in variables.items()}
        place = (f"{log}-{rank}", environment, function, arguments)
        processes.append(context.Process(target=_main, args=place))
    for process in processes:
        process.start()
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


def _main(log: str, environment: dict[str, str], function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.update(environment)
    gc.freeze()  # what came with the fork is no garbage
    import torch

    torch.set_num_threads(1)
    code = 1
    try:
        code = int(function(*arguments) or 0)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a group of processes that has lost a member may wait for it in its end
