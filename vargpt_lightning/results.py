"""Reading results: run folders, and tidy tables over many runs (docs/results.md). Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vargpt_lightning.runs.folder import RunFolder, StageFolder, find_runs, list_runs

if TYPE_CHECKING:  # pandas is imported when tables are wanted
    from vargpt_lightning.runs.tables import Runs

__all__ = ["RunFolder", "StageFolder", "find_runs", "list_runs", "load_runs"]


def load_runs(folder: Path | str | Sequence[Path | str], where: Any = None) -> Runs:
    """Return the runs in folders as tidy pandas tables: see `runs.tables.load_runs`, and docs/results.md."""
    from vargpt_lightning.runs import tables

    return tables.load_runs(folder, where)


def __getattr__(name: str) -> Any:
    """Find what was here in earlier versions."""
    from vargpt_lightning.moved import attribute

    return attribute(__name__, name)
