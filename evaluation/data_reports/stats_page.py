"""What packed folders are made of, as a table in the terminal and as a page with figures."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from vargpt_lightning.data.packing.stats import TASKS, FolderStats
from vargpt_lightning.evaluation.data_reports.pages import render

CAPTIONS = {
    "composition": "Records by corpus and by source.",
    "lengths": "Length of the texts of a record, by what it teaches.",
    "pictures": "Turns and pictures of a record, as shares of the records; 20 stands for 20 and more.",
    "sizes": "Sizes of pictures as they are kept, some hundred of each source.",
}


def rows(folders: Sequence[FolderStats]) -> list[dict[str, Any]]:
    """Return a row for each source of each folder, as the tables show it."""
    total = sum(folder.count for folder in folders) or 1
    found = []
    for folder in folders:
        for source in folder.sources:
            looked_at = sum(source.tasks.values()) or 1
            found.append(
                {
                    "folder": folder.name,
                    "source": source.name,
                    "records": source.count,
                    "share": source.count / total,
                    "tasks": {task: count / looked_at for task, count in source.tasks.items()},
                    "turns": source.mean(source.turns),
                    "median": source.quantile(0.5),
                    "long": source.quantile(0.95),
                    "seen": source.mean(source.seen),
                    "drawn": source.mean(source.drawn),
                    "rejected": source.rejected,
                }
            )
    return found


def print_table(folders: Sequence[FolderStats], unit: str) -> None:
    """Print a row for each source of each folder; `unit` is what lengths are counted in."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("folder", "source", "tasks"):
        table.add_column(name, overflow="fold")
    for name in ("records", "share", "turns", unit, "95 %", "seen", "drawn", "rejected"):
        table.add_column(name, justify="right")
    for row in rows(folders):
        tasks = ", ".join(f"{task} {share:.0%}" for task, share in row["tasks"].items())
        numbers = (
            f"{row['records']:,}", f"{row['share']:.1%}", f"{row['turns']:.1f}", f"{row['median']:,}",
            f"{row['long']:,}", f"{row['seen']:.2f}", f"{row['drawn']:.2f}", f"{row['rejected']:,}",
        )  # fmt: skip
        table.add_row(escape(row["folder"]), escape(row["source"]), tasks, *numbers)
    console = Console()
    (console if console.is_terminal else Console(width=200)).print(table)


def page(folders: Sequence[FolderStats], unit: str, figures: dict[str, bytes]) -> str:
    """Return the page: everything is inside of it."""
    pictures = [
        {"uri": f"data:image/png;base64,{base64.b64encode(content).decode()}", "caption": CAPTIONS[name]}
        for name, content in figures.items()
    ]
    return render(
        "data_stats.html.j2",
        title="What the data are made of",
        folders=folders,
        total=sum(folder.count for folder in folders),
        rows=rows(folders),
        tasks=TASKS,
        unit=unit,
        figures=pictures,
        sampled=[folder for folder in folders if folder.looked_at < folder.count],
    )
