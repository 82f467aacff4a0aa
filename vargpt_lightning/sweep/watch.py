"""A sweep on the terminal: its table, which moves where somebody looks, and lines where nobody does."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.live import Live

from vargpt_lightning.sweep.folder import ENDED, Row, SweepFolder, Taken
from vargpt_lightning.sweep.launch import LocalWorkers, changes
from vargpt_lightning.sweep.table import SweepTable
from vargpt_lightning.sweep.tidy import tidy
from vargpt_lightning.sweep.trial import Outcome

REFRESH = 1.0


def run_here(folder: SweepFolder, count: int, gpus: Sequence[str]) -> bool:
    """Run a sweep's trials with workers of this machine, and show them; return whether all have ended well."""
    workers = LocalWorkers(folder, count, gpus)
    console = Console()
    if console.is_terminal:
        with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
            rows = workers.run(lambda rows: live.update(SweepTable(folder.sweep, rows).rich(), refresh=True))
    else:
        before: dict[str, str] = {}
        rows = workers.run(lambda rows: _say(changes(rows, before)))
        Console(width=200).print(SweepTable(folder.sweep, rows).rich())
    if all(row.state in ENDED for row in rows):
        tidy(folder, rows)
    return all(row.state in ("finished", "pruned") for row in rows)


def _say(rows: Iterable[Row]) -> None:
    for row in rows:
        figures = ", ".join(f"{name} {value:.4g}" for name, value in row.measures.items())
        print(f"{row.state}: {row.name}  {figures if row.state == 'finished' else row.error}".rstrip(), flush=True)


def tell(taken: Taken, outcome: Outcome | None) -> None:
    """Print that a trial begins, or how it has ended."""
    stamp = time.strftime("%H:%M:%S")
    if outcome is None:
        print(f"{stamp} begins: {taken.name}", flush=True)
    else:
        print(f"{stamp} {outcome.state}: {taken.name} ({outcome.seconds:.0f} s) {outcome.error}".rstrip(), flush=True)


def show_table(folder: SweepFolder, table: SweepTable, top: int | None = None, live: bool = False) -> None:
    """Print a sweep's table; with `live` until the sweep has ended."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    if not live:
        console.print(table.rich())
        return
    with Live(table.rich(), console=console, auto_refresh=False, vertical_overflow="visible") as shown:
        rows: Sequence[Row] = table.rows
        while not all(row.state in ENDED for row in rows):
            time.sleep(REFRESH)
            rows = folder.rows()
            shown.update(SweepTable(folder.sweep, rows, top).rich(), refresh=True)
