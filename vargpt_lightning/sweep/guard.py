"""Start a program that ends when the process that started it dies: `python -m vargpt_lightning.sweep.guard PID ...`.

A sweep that is killed leaves no trial behind that goes on unseen. Linux alone can do so; elsewhere the program goes on,
and its lock keeps others away until it has ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys

SET_SIGNAL_OF_PARENTS_DEATH = 1  # PR_SET_PDEATHSIG


def end_with(parent: int) -> None:
    """Send this process SIGTERM when its parent, whose number is given, dies."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(SET_SIGNAL_OF_PARENTS_DEATH, signal.SIGTERM)
            if os.getppid() != parent:  # it was too late
                sys.exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    end_with(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
