"""How far the parts of an evaluation are and how long they will take: bars in a terminal, lines in a file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vargpt_lightning.utils.counted import duration_text

if TYPE_CHECKING:
    from rich.console import Console

    from vargpt_lightning.evaluation.harness.run import Progress


@contextmanager
def benchmark_progress(console: Console | None = None, every: float = 15.0, quiet: bool = False) -> Iterator[Progress]:
    """A progress callback for several benchmarks, or other work with a title, one after the other.

    Args:
        console: where to show it; stderr by default, so that a table on stdout stays clean.
        every: seconds between two lines where there is no terminal.
        quiet: show nothing, as in processes other than the first.
    """
    from rich.console import Console

    console = console or Console(stderr=True)
    if quiet:
        yield lambda title, done, total: None
    elif console.is_terminal:
        with _bars(console) as say:
            yield say
    else:
        yield _Lines(console, every)


@contextmanager
def _bars(console: Console) -> Iterator[Progress]:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description:>18}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, TimeElapsedColumn(), console=console, speed_estimate_period=120) as bars:
        known: dict[str, Any] = {}

        def say(title: str, done: int, total: int) -> None:
            if title not in known:  # what was done before says nothing about the time left
                known[title] = bars.add_task(title, total=total, completed=done)
            bars.update(known[title], completed=done, total=total)

        yield say


class _Lines:
    """A line for each benchmark when it starts, every few seconds, and when it is done."""

    def __init__(self, console: Console, every: float) -> None:
        self.console, self.every = console, every
        self._title, self._first = "", 0
        self._began = self._printed = 0.0

    def __call__(self, title: str, done: int, total: int) -> None:
        now = time.monotonic()
        if title != self._title:
            self._title, self._first, self._began, self._printed = title, done, now, now
            self._print(f"{title}: {done}/{total}" + (" done before" if done else ""))
        elif done >= total and self._printed:
            self._printed = 0.0
            self._print(f"{title}: {done}/{total}, took {duration_text(now - self._began)}")
        elif self._printed and now - self._printed >= self.every and done > self._first:
            self._printed = now
            left = (now - self._began) / (done - self._first) * (total - done)
            self._print(f"{title}: {done}/{total}, {duration_text(left)} left")

    def _print(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)
