"""What a command says while it works: lines and, in a terminal, a moving one; all on stderr. No torch."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

PERIOD = 0.2  # seconds between two looks at the moving line


def say(text: str) -> None:
    """Say what is done now, at once; stdout is left to what the command is asked for."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


@contextmanager
def working(text: str) -> Iterator[Step]:
    """Say what is done in this block: one line, and in a terminal one that counts the seconds and goes away."""
    step = Step(text)
    if not sys.stderr.isatty():
        say(f"{text} ...")
        yield step
        return
    ended = threading.Event()
    thread = threading.Thread(target=_move, args=(step, ended), daemon=True, name="progress")
    thread.start()
    try:
        yield step
    finally:
        ended.set()
        thread.join()


class Step:
    """What a moving line says; `text` may be changed while it moves."""

    def __init__(self, text: str) -> None:
        self.text = text


def _move(step: Step, ended: threading.Event) -> None:
    began = time.monotonic()
    while True:
        sys.stderr.write(f"\r\x1b[K{step.text} ... {time.monotonic() - began:.0f} s")
        sys.stderr.flush()
        if ended.wait(PERIOD):
            break
    sys.stderr.write("\r\x1b[K")
    sys.stderr.flush()


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
