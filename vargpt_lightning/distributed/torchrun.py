"""The processes that torchrun has started for a command that trains nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a command's help must not wait for torch
    from vargpt_lightning.distributed.group import Processes


@contextmanager
def shared_processes() -> Iterator[Processes]:
    """This process among those that torchrun started; alone where it did not."""
    from vargpt_lightning.distributed.group import Processes

    if int(os.environ.get("WORLD_SIZE", "1")) <= 1:
        yield Processes()
        return
    from datetime import timedelta

    import torch.distributed as group

    if group.is_initialized():  # by a caller, who ends it too
        yield Processes.from_environment()
        return
    # nothing but a barrier travels: gloo does, on GPUs too; a slow share may keep the others waiting for long
    group.init_process_group("gloo", timeout=timedelta(days=7))
    try:
        yield Processes.from_environment()
    finally:
        group.destroy_process_group()


def own_device() -> str:
    """Return a GPU for each process of this machine, where there are some."""
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"
