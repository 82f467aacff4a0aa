"""The experiments of a sweep, read before any of them is trained."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vargpt_lightning.sweep.cells import make_cell, write_cell
from vargpt_lightning.sweep.spec import Sweep
from vargpt_lightning.utils.errors import UserError


def check_cells(sweep: Sweep, load: Callable[[list[str]], object]) -> None:
    """Read experiments as their trials would, until every value was in one: a mistake is told before all training.

    Args:
        load: reads an experiment from the arguments of its trial.

    Raises:
        UserError: naming the cell, the key, its value and what was expected.
    """
    if sweep.sampled:
        cells = [make_cell(sweep, {key: _first(choice) for key, choice in sweep.space.items()}, sweep.seeds[0])]
    else:
        cells = [make_cell(sweep, values, sweep.seeds[0]) for values in _covering(sweep)]
    with tempfile.TemporaryDirectory() as temporary:
        for number, cell in enumerate(cells):
            file = Path(temporary) / f"{number}.yaml"
            write_cell(cell, file, "")
            try:
                load(["-c", str(file)])
            except UserError as error:
                raise UserError(f"{cell.slug}: {str(error).replace(f'{file}: ', '')}") from error


def _covering(sweep: Sweep) -> list[dict[str, Any]]:
    """Some cells in which every value of every axis occurs; their number is that of the values, not of the cells."""
    seen: set[tuple[str, str]] = set()
    found: list[dict[str, Any]] = []
    for values, _ in sweep.points():
        new = {(key, repr(value)) for key, value in values.items()} - seen
        if new or not found:
            seen |= new
            found.append(values)
    return found


def _first(choice: Any) -> Any:
    return choice.choices[0] if choice.choices else choice.low
