"""`vargpt data stats`: what packed folders are made of, as a table in the terminal and a page with figures."""

from __future__ import annotations

import argparse
import base64
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vargpt_lightning.utils.arguments import Parser
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import write_bytes
from vargpt_lightning.utils.paths import output_file, output_folder, user_path

if TYPE_CHECKING:
    from vargpt_lightning.data.packing.stats import FolderStats, Measure

EXAMPLE = """examples:
  vargpt data stats data/llava-v1_5-mix665k data/imagenet-dialogues --out stats.html
  vargpt data stats data/llava-v1_5-mix665k --tokenizer weights/llava-1.5-7b-hf
"""
CAPTIONS = {
    "composition": "Records by corpus and by source.",
    "lengths": "Length of the texts of a record, by what it teaches.",
    "pictures": "Turns and pictures of a record, as shares of the records; 20 stands for 20 and more.",
    "sizes": "Sizes of pictures as they are kept, some hundred of each source.",
}


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    result = Parser(
        prog="vargpt data stats",
        description="Show what packed folders are made of, by source, task, length and pictures.",
        epilog=EXAMPLE,
    )
    result.add_argument("folders", nargs="+", type=user_path, metavar="DIR", help="a packed folder")
    result.add_argument(
        "--out", type=user_path, default=Path("stats.html"), metavar="FILE", help="the page (stats.html)"
    )
    result.add_argument("--plots", type=user_path, metavar="DIR", help="write the figures there as PNG files, too")
    result.add_argument("--tokenizer", type=user_path, metavar="PATH", help="count lengths in its tokens (in words)")
    result.add_argument(
        "--limit",
        type=int,
        default=50_000,
        metavar="N",
        help="records of a folder that are read, evenly spread (50000)",
    )
    return result


def main(argv: list[str]) -> int:
    """Read the folders, print the table, write the page."""
    arguments = parser().parse_args(argv)
    from vargpt_lightning.commands.data.plots import plots
    from vargpt_lightning.data.packing.stats import describe_folder

    if arguments.limit < 1:
        raise UserError(f"--limit {arguments.limit}: expected at least 1")
    output_file(arguments.out)
    if arguments.plots is not None:
        output_folder(arguments.plots)
    unit, measure = _measure(arguments.tokenizer)
    folders = [describe_folder(folder, limit=arguments.limit, measure=measure) for folder in arguments.folders]
    _print(folders, unit)
    figures = plots(folders, unit)
    if arguments.plots is not None:
        for name, content in figures.items():
            write_bytes(arguments.plots / f"{name}.png", content)
    write_bytes(arguments.out, page(folders, unit, figures).encode())
    print(f"page: {arguments.out}")
    return 0


def _measure(tokenizer: Path | None) -> tuple[str, Measure]:
    """What lengths are counted in, and how."""
    from vargpt_lightning.data.packing.stats import words

    if tokenizer is None:
        return "words", words
    from vargpt_lightning.data.text.text_tokenizer import TextTokenizer

    tokens = TextTokenizer.load(tokenizer)
    return "tokens", lambda record: sum(len(tokens.encode(text)) for text in record.texts())


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


def _print(folders: Sequence[FolderStats], unit: str) -> None:
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
    from vargpt_lightning.commands.data.pages import render
    from vargpt_lightning.data.packing.stats import TASKS

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
