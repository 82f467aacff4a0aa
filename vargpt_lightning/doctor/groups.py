"""Groups of processes, by a real exchange: gloo between two processes, NCCL between the GPUs that there are."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial

from vargpt_lightning.doctor.findings import Check, Fault, NotHere, one_line

PART = "processes"
SECONDS = 60
ANSWER = "sum of ranks:"


def group_checks() -> Iterator[Check]:
    """The checks of what processes exchange tensors by."""
    yield Check(PART, "gloo", partial(exchange, "gloo"))
    yield Check(PART, "NCCL", partial(exchange, "nccl"))


def exchange(backend: str) -> str:
    """Add up numbers of several processes, each on a device of its own; a GPU by itself exchanges with itself.

    Raises:
        Fault: a process ends with an error or gets another sum.
        NotHere: torch was built without the backend, or there is no GPU.
    """
    import torch
    import torch.distributed as dist

    if not dist.is_available():
        raise NotHere("this torch has no torch.distributed")
    count = 2
    if backend == "nccl":
        if not torch.cuda.is_available():
            raise NotHere("there is no GPU")
        if not dist.is_nccl_available():
            raise NotHere("this torch was built without NCCL")
        count = min(4, torch.cuda.device_count())
    said = run_processes([sys.executable, "-m", __name__, backend], count)
    wanted = f"{ANSWER} {sum(range(count))}"
    if wrong := [text for text in said if wanted not in text]:
        raise Fault(f"{backend}: {one_line(wrong[0][-300:])}; expected {wanted}")
    return f"{count} {'process' if count == 1 else 'processes'} added up their numbers"


def run_processes(command: list[str], count: int, seconds: float = SECONDS) -> list[str]:
    """Start processes with the variables that torchrun sets, and return what each has printed.

    Raises:
        Fault: they take too long.
    """
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    started = []
    for rank in range(count):
        own: dict[str, object] = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
        own |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment = os.environ | {name: str(value) for name, value in own.items()}
        started.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
    try:
        return [process.communicate(timeout=seconds)[0] for process in started]
    except subprocess.TimeoutExpired as error:
        raise Fault(f"{count} processes said nothing for {seconds:.0f} s") from error
    finally:
        for process in started:
            process.kill()
            process.wait()


def main(backend: str) -> None:
    """One of the processes."""
    import torch
    import torch.distributed as dist

    rank = int(os.environ["RANK"])
    device = torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(backend)
    number = torch.tensor([rank], device=device)
    dist.all_reduce(number)
    print(ANSWER, int(number))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
