"""Work shared by processes, its results taken in order, with no process left behind when the first one is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing.connection import wait
from typing import Any, TypeVar

from vargpt_lightning.utils.errors import UserError

T = TypeVar("T")
R = TypeVar("R")
AHEAD = 2  # tasks for each process that may be done before their turn comes: what bounds memory and disk


def in_order(function: Callable[[T], R], tasks: Iterable[T], processes: int, doing: str = "packing") -> Iterator[R]:
    """Yield `function(task)` for each task, in the tasks' order; with one process there is no pool.

    Raises what the function raises, and UserError when a process dies.
    """
    if processes == 1:
        yield from map(function, tasks)
        return
    # a server that was started clean: forking a process with threads of its own may hang
    context = multiprocessing.get_context("forkserver")
    # what the server has imported its processes need not: neither torch nor numpy, which have threads
    context.set_forkserver_preload([_module_of(function), "vargpt_lightning.data.images.picture_files"])
    before = set(multiprocessing.active_children())
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_tie_to_parent) as pool:
        try:
            yield from _drain(pool, function, iter(tasks), processes * AHEAD)
        except BrokenProcessPool as error:
            raise UserError(
                f"a process that was {doing} died, perhaps because memory ran out; the same command resumes"
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(multiprocessing.active_children()) - before:
                process.terminate()
            raise


def _module_of(function: Callable[..., Any]) -> str:
    return str(getattr(function, "func", function).__module__)


def _drain(pool: ProcessPoolExecutor, function: Callable[[T], R], tasks: Iterator[T], ahead: int) -> Iterator[R]:
    waiting: deque[Future[R]] = deque(pool.submit(function, task) for task in islice(tasks, ahead))
    while waiting:
        result = waiting.popleft().result()
        waiting.extend(pool.submit(function, task) for task in islice(tasks, 1))
        yield result


def _tie_to_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def end_with_parent() -> None:
    """End this process when the one that started it is gone: nobody else would end it.

    Processes of a fork server hold what tells that server of its own master's end, and would wait for each other.
    """
    parent: Any = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
