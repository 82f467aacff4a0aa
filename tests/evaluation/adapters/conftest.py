"""The tiny finished run, and how to make its model say what a test wants."""

from __future__ import annotations

from tests.commands.conftest import finished_run, run_copy, script

__all__ = ["finished_run", "run_copy", "script"]
