"""`vargpt runs`: a table of the runs in a folder. Imports no torch, so that it answers at once."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vargpt_lightning.runs.folder import list_runs
from vargpt_lightning.utils.arguments import Parser
from vargpt_lightning.utils.errors import UserError, near_path

COLOURS = {"finished": "green", "running": "cyan", "interrupted": "yellow", "failed": "red"}
FIGURES = 3  # more make a terminal's line too narrow to read; the report has them all


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    result = Parser(
        prog="vargpt runs",
        description="List the runs in a folder and below it, the oldest first: how far each is and what it reached.",
        epilog="example:\n  vargpt runs runs/",
    )
    result.add_argument("root", nargs="?", default="runs", help="the folder (default: runs)")
    return result


def main(argv: list[str]) -> int:
    """Print the table.

    Raises:
        UserError: there is no such folder.
    """
    root = Path(parser().parse_args(argv).root)
    if not root.is_dir():
        raise UserError(f"{root}: there is no such folder; name the one that holds the runs{near_path(root)}")
    rows = list_runs(root, skipped=lambda why: print(f"left out: {why}", file=sys.stderr))
    console = Console()
    if not rows:
        console.print(f"No runs in {root}. Start one with: vargpt fit -c experiments/openmoji.yaml", markup=False)
        return 0
    if not console.is_terminal:  # a file or a pipe has no width: give every column its room
        console = Console(width=200)
    console.print(table(rows))
    return 0


def table(rows: list[dict[str, Any]]) -> Table:
    """Return the runs as a table; the columns after the time are the first headline metrics that any of them has."""
    figures = list(dict.fromkeys(name for row in rows for name in row["headline"]))[:FIGURES]
    result = Table(box=None, pad_edge=False)
    for name in ("run", "status", "stage", "started", "time", *figures):
        # A path is of use only when it is whole.
        result.add_column(
            name, overflow="fold" if name == "run" else "ellipsis", justify="right" if name == "time" else "left"
        )
    for row in rows:
        status = f"[{COLOURS.get(row['status'], 'white')}]{row['status']}[/]"
        started = str(row["started"]).replace("T", " ")[:16]
        reached = [str(row["headline"].get(name, "")) for name in figures]
        plain = [escape(text) for text in (str(row["path"]), row["stage"], started, duration(row["seconds"]), *reached)]
        result.add_row(plain[0], status, *plain[1:])
    return result


def duration(seconds: float) -> str:
    """Return seconds as "45 s", "12 min" or "3 h 05 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
