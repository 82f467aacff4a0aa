"""A worker: takes one trial of a sweep after the other, until none is left that it could take."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from vargpt_lightning.sweep.folder import SweepFolder, Taken
from vargpt_lightning.sweep.trial import Outcome, TrialProcess

ATTEMPTS = 2
"""How often a worker starts a trial whose process is killed each time, as one is that runs out of memory."""

Told = Callable[[Taken, Outcome | None], None]


def work(folder: SweepFolder, told: Told | None = None, limit: int | None = None) -> int:
    """Run trials; return how many ended. `told` hears of each at its beginning (None) and at its end.

    A trial whose process is killed is started again, `ATTEMPTS` times in all, and then left to the next worker.
    SIGTERM lets the trial save its state, gives it back and ends with SystemExit 143.
    """
    attempts: Counter[int] = Counter()
    ended = 0
    with ended_by_sigterm():
        while limit is None or ended < limit:
            given_up = {number for number, count in attempts.items() if count >= ATTEMPTS}
            taken = folder.take(given_up)
            if taken is None:
                break
            attempts[taken.number] += 1
            if told:
                told(taken, None)
            try:
                outcome = TrialProcess(folder, taken).watch()
                if outcome.state != "interrupted":
                    folder.end(taken, outcome.state, outcome.measures, outcome.error, outcome.seconds)
                    ended += 1
            finally:
                taken.lock.release()
            if told:
                told(taken, outcome)
    return ended


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """End the block with SystemExit 143 on the first SIGTERM."""

    def leave(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # once is enough: the trial is saving
        raise SystemExit(128 + number)

    previous = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def thread_limits(workers: int) -> dict[str, str]:
    """The environment that lets so many workers share this machine's cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": str(max(1, cores // max(1, workers)))}
