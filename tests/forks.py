"""Processes that are forked from one that has imported everything already and run nothing, so each starts at once."""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

PRELOADED = ["vargpt_lightning.experiment.parser", "vargpt_lightning.training.runner", "tests.preload"]


def forks() -> Any:
    """The context of multiprocessing that forks from such a process."""
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def start(log: Path, function: Callable[..., Any], *arguments: Any, **environment: str) -> Any:
    """Start a process that calls a function of a module, whose number is its exit code; return it.

    What it prints goes to `log`.
    """
    process = forks().Process(target=_main, args=(str(log), environment, function, arguments))
    process.start()
    return process


def _main(log: str, environment: dict[str, str], function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.update(environment)
    gc.freeze()  # what came with the fork is no garbage; each stage would look through it
    import torch

    torch.set_num_threads(1)
    code = 1
    try:
        code = int(function(*arguments) or 0)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a group of processes that has lost a member may wait for it in its end
