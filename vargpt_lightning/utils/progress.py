"""What a command says while it works: lines and, in a terminal, a moving one; all on stderr. No torch."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any


def say(text: str) -> None:
    """Say what is done now, at once; stdout is left to what the command is asked for."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


class Step:
    """What a moving line says; `text` may be changed while it moves."""

    def __init__(self, text: str, tell: Callable[[str], None] | None = None) -> None:
        self._text, self._tell = text, tell

    @property
    def text(self) -> str:
        return self._text

    @text.setter
    def text(self, text: str) -> None:
        self._text = text
        if self._tell:
            self._tell(text)


@contextmanager
def working(text: str) -> Iterator[Step]:
    """Say what is done in this block: one line, and in a terminal one that counts the seconds and goes away."""
    if not sys.stderr.isatty():
        say(f"{text} ...")
        yield Step(text)
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description} ...", markup=False), TimeElapsedColumn())
    # stdout is left alone, and so are bars that packages draw on stderr
    shown = Progress(
        *columns, console=Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False
    )
    with shown:
        task = shown.add_task(text, total=None)
        yield Step(text, lambda text: shown.update(task, description=text))


@contextmanager
def importing() -> Iterator[None]:
    """Import torch and what stands on it in this block, a sixth faster: nothing that modules make is garbage."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()  # and it is not walked again


@contextmanager
def bar(title: str, describe: Callable[[int, int], str]) -> Iterator[Callable[[int, int, int, int], None] | None]:
    """Show a bar where there is a terminal to see it; yields what is told how far the work is, else None.

    Args:
        describe: what stands behind the bar, made of two counts of the work's own.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[said]}"))
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as shown:
        task = shown.add_task(title, total=None, said="")

        def watch(done: int, total: int, one: int, other: int) -> None:
            shown.update(task, completed=done, total=total, said=describe(one, other))

        yield watch


class Phases:
    """A line that counts things, phase by phase, where somebody looks.

    Args:
        unit: what is counted.
        names: what a phase is called on the line, where that is not its name.
    """

    def __init__(self, unit: str, names: Mapping[str, str]) -> None:
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        told = TextColumn(f"{{task.description}} {{task.completed:.0f}} {unit}")
        console = Console(file=sys.stderr)
        columns = (SpinnerColumn(), told, TimeElapsedColumn())
        self._names = names
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._tasks: dict[str, Any] = {}
        self._bar.start()

    def tell(self, phase: str, count: int) -> None:
        """Count some more of a phase."""
        if phase not in self._tasks:
            self._tasks[phase] = self._bar.add_task(self._names.get(phase, phase), total=None)
        self._bar.advance(self._tasks[phase], count)

    def close(self) -> None:
        """Take the line away."""
        self._bar.stop()
