"""Starts a command once for each device of this machine, and ends all processes when one of them dies. No torch.

For several machines use torchrun or srun, which start the processes themselves; then nothing is started here.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType

PARENT = "VARGPT_PARENT"
STARTED_BY_OTHERS = ("TORCHELASTIC_RUN_ID", "SLURM_PROCID", "LOCAL_RANK", PARENT)
GRACE = 15.0  # seconds that the others have to end by themselves
PATIENCE = 600.0  # seconds that all have, once they were asked, to save and end
FORWARDED = (signal.SIGTERM, signal.SIGINT)


def started_by_others() -> bool:
    """Whether torchrun, Slurm or this module has started this process as one of several."""
    if "SLURM_PROCID" in os.environ and _number("SLURM_NTASKS") < 2:
        return any(name in os.environ for name in STARTED_BY_OTHERS if name != "SLURM_PROCID")
    return any(name in os.environ for name in STARTED_BY_OTHERS)


def one_of_several() -> bool:
    """Whether whoever has started this process says that there are others, on this machine or another."""
    return any(_number(name) > 1 for name in ("WORLD_SIZE", "SLURM_NTASKS"))


def local_processes() -> int:
    """How many processes of the run there are on this machine, as far as whoever has started them says."""
    return max(_number("LOCAL_WORLD_SIZE"), _number("SLURM_NTASKS_PER_NODE"))


def _number(name: str) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else 1


def launch(arguments: Sequence[str], count: int) -> int:
    """Run `vargpt` with the arguments in `count` processes; return the exit code of the first that failed, else 0.

    SIGTERM and SIGINT are passed on. When a process ends otherwise than the signal asks for, the others have a short
    time to notice and are then killed; a message says which process it was.
    """
    port = _free_port()
    processes = [_start(arguments, rank, count, port) for rank in range(count)]
    asked: list[float] = []

    def forward(number: int, frame: FrameType | None) -> None:
        asked.append(time.monotonic())
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    before = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        return _watch(processes, asked)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        for number, handler in before.items():
            signal.signal(number, handler)


def _start(arguments: Sequence[str], rank: int, count: int, port: int) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": f"vargpt-{os.getpid()}",  # Lightning then takes the numbers from above
        PARENT: str(os.getpid()),
    }
    environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    command = [sys.executable, "-m", "vargpt_lightning.cli", *arguments]
    # in a session of its own, so that the terminal's signals come by way of this process alone
    return subprocess.Popen(command, env=environment, start_new_session=True)


def _watch(processes: list[subprocess.Popen[bytes]], asked: list[float]) -> int:
    """Wait for all; once one has failed, or all were asked to end, only so long."""
    failed: tuple[int, float] | None = None
    while True:
        codes = [process.poll() for process in processes]
        for rank, code in enumerate(codes):
            if code and failed is None:
                failed = rank, time.monotonic()
                if not asked:
                    _tell(rank, len(processes), code)
        if all(code is not None for code in codes):
            break
        patience = PATIENCE if asked else GRACE
        since = failed[1] if failed else asked[0] if asked else None
        if since is not None and time.monotonic() - since > patience:
            break
        time.sleep(0.1)
    if failed is None:
        return 128 + signal.SIGTERM if asked and any(code is None for code in codes) else 0
    code = codes[failed[0]] or 0
    return 128 - code if code < 0 else code


def _tell(rank: int, count: int, code: int) -> None:
    if code < 0:
        how = f"was killed by {signal.Signals(-code).name}"
    elif code == 2:
        return  # it has said itself what was wrong
    else:
        how = f"ended with code {code}"
    sys.stderr.write(
        f"vargpt: process {rank} of {count} {how}; the others are stopped too. The same command resumes from the last "
        "checkpoint.\n"
    )
    sys.stderr.flush()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def end_with_parent(patience: float = 60.0, end: Callable[[int], None] = os._exit) -> None:
    """Ask this process to end, and end it after a while, when the one that started it is gone; returns at once."""
    parent = os.environ.get(PARENT)
    if parent is None:
        return

    def watch() -> None:
        while os.getppid() == int(parent):
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(patience)
        end(1)

    threading.Thread(target=watch, daemon=True, name="end with parent").start()
