"""Forked processes that read batches ahead, each with pipes of its own: they cost less than torch's queues and threads.

Batch n is read by process n modulo their number, so that nothing must be put in order, and none waits for another.
What they hold is worth nothing: they are killed when it is over.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import pickle
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from multiprocessing.util import Finalize
from typing import Any

import torch
from torch import Tensor
from torch._utils import ExceptionWrapper

Fetch = Callable[[Any], Any]
_PIPE_SIZE = 1032  # F_GETPIPE_SZ, which Python's fcntl has from 3.10 on, where the system does


class Readers:
    """The batches that `fetch` makes of what `plan` yields, `ahead` of them read ahead by each of some processes.

    `begin(number)` is called first in each process. It is an iterator that begins anew with `restart`.
    Raises what `fetch` raised, and RuntimeError when a process dies.
    """

    def __init__(self, fetch: Fetch, plan: Iterable[Any], processes: int, ahead: int, begin: Callable[[int], None]):
        self._ahead = ahead
        self._readers: list[_Reader] = []
        for number in range(processes):
            self._readers.append(_Reader(fetch, number, begin, [reader.ends for reader in self._readers]))
        self._end = Finalize(self, _end, ([reader.process for reader in self._readers],), exitpriority=10)
        self.restart(plan)

    def restart(self, plan: Iterable[Any]) -> None:
        """Begin anew; what was read ahead and not taken is thrown away."""
        for reader in self._readers:
            reader.forget()
        self._plan: Iterator[Any] = iter(plan)
        self._turn = 0
        for place, task in enumerate(islice(self._plan, len(self._readers) * self._ahead)):
            self._readers[place % len(self._readers)].ask(task)

    def __iter__(self) -> Readers:
        return self

    def __next__(self) -> Any:
        reader = self._readers[self._turn % len(self._readers)]
        if not reader.busy:
            raise StopIteration
        answer = reader.answer()
        self._turn += 1
        for task in islice(self._plan, 1):
            reader.ask(task)
        if isinstance(answer, ExceptionWrapper):
            answer.reraise()
        return answer


class _Reader:
    """One process, as the training process sees it."""

    def __init__(
        self, fetch: Fetch, number: int, begin: Callable[[int], None], others: Sequence[tuple[Connection, Connection]]
    ) -> None:
        tasks, self._tasks = multiprocessing.Pipe(duplex=False)
        self._answers, answers = multiprocessing.Pipe(duplex=False)
        self.ends = (self._tasks, self._answers)
        context = multiprocessing.get_context("fork")
        # the ends of other processes' pipes are closed there: else these would not be told that this process is gone
        others = [*others, self.ends]
        arguments = (fetch, number, begin, tasks, answers, others)
        self.process = context.Process(target=_serve, args=arguments, daemon=True)
        self.process.start()
        tasks.close()
        answers.close()
        # what fits into half of a pipe in any case: more is not sent before the process waits for it, lest it waits
        # for answers to be taken while this process waits for it
        self._room = fcntl.fcntl(self._tasks.fileno(), _PIPE_SIZE) // 2
        self._asked: deque[int] = deque()
        self._later: deque[Any] = deque()

    @property
    def busy(self) -> bool:
        """Whether an answer is to come."""
        return bool(self._asked)

    def ask(self, task: Any) -> None:
        """Have a batch read, after those that were asked for before."""
        self._later.append(pickle.dumps(task, pickle.HIGHEST_PROTOCOL))
        self._send()

    def _send(self) -> None:
        while self._later and (not self._asked or sum(self._asked) + len(self._later[0]) <= self._room):
            task = self._later.popleft()
            self._asked.append(len(task))
            try:
                self._tasks.send_bytes(task)
            except BrokenPipeError:
                self._complain()

    def answer(self) -> Any:
        """Return the next batch that was asked for, once it is read."""
        try:
            answer = self._answers.recv()
        except (EOFError, ConnectionResetError):
            self._complain()
        self._asked.popleft()
        self._send()
        return answer

    def forget(self) -> None:
        """Take what was asked for, for nothing."""
        self._later.clear()
        while self._asked:
            self.answer()

    def _complain(self) -> None:
        self.process.join()
        how = self.process.exitcode or 0
        told = f"signal {signal.Signals(-how).name}" if how < 0 else f"exit code {how}"
        raise RuntimeError(
            f"a process that reads batches ahead (pid {self.process.pid}) ended by itself ({told}), perhaps for want "
            "of memory; data.workers: 0 reads in the training process"
        )


def _serve(
    fetch: Fetch,
    number: int,
    begin: Callable[[int], None],
    tasks: Connection,
    answers: Connection,
    others: Sequence[tuple[Connection, Connection]],
) -> None:
    for connection in (connection for ends in others for connection in ends):
        connection.close()
    # a run that is broken off by hand is ended by the training process, in its own time
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    begin(number)
    while True:
        try:
            task = tasks.recv()
        except EOFError:
            return
        try:
            answer = fetch(task)
        except Exception:
            answer = ExceptionWrapper(where=f"in process {os.getpid()}, which reads batches ahead")
        try:
            answers.send_bytes(_pickled(answer))
        except BrokenPipeError:
            return
        del answer  # or its memory would not be free for the next one


def _pickled(answer: Any) -> Any:
    plain = isinstance(answer, dict) and not any(isinstance(value, Tensor) for value in answer.values())
    # torch's pickler puts tensors into files in shared memory; to make one takes longer than to pickle a small answer
    return pickle.dumps(answer, pickle.HIGHEST_PROTOCOL) if plain else ForkingPickler.dumps(answer)


def _end(processes: Sequence[Any]) -> None:
    for process in processes:
        process.kill()
    for process in processes:
        process.join()
