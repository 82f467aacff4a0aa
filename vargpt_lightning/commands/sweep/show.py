"""`vargpt sweep show`: a sweep's table, for the terminal and for papers."""

from __future__ import annotations

import sys
from pathlib import Path

from vargpt_lightning.sweep.folder import SweepFolder
from vargpt_lightning.sweep.table import SweepTable
from vargpt_lightning.sweep.watch import show_table
from vargpt_lightning.utils.arguments import Parser
from vargpt_lightning.utils.capacity import positive
from vargpt_lightning.utils.files import write_bytes

EXAMPLE = "example:\n  vargpt sweep show sweeps/guidance --csv guidance.csv --plot guidance.png"


def main(argv: list[str]) -> int:
    """Show the table, and write what is asked for."""
    result = Parser(
        prog="vargpt sweep show",
        description="Show a sweep's table: mean and 95 % interval over the seeds, the best marked; the errors below.",
        epilog=EXAMPLE,
    )
    result.add_argument("folder", type=Path, help="the sweep's folder")
    result.add_argument("--live", action="store_true", help="keep showing it until the sweep has ended")
    result.add_argument("--top", type=positive, metavar="N", help="the N best by the first measure")
    for kind, text in (("csv", "a table of numbers"), ("latex", "a tabular"), ("markdown", "a table for a page")):
        result.add_argument(f"--{kind}", type=Path, metavar="FILE", help=f"write {text}; - for the terminal")
    result.add_argument("--plot", type=Path, metavar="FILE", help="write a plot: .png, .pdf or .svg")
    arguments = result.parse_args(argv)
    folder = SweepFolder(arguments.folder)
    table = SweepTable(folder.sweep, folder.rows(), arguments.top)
    texts = {arguments.csv: table.csv, arguments.latex: table.latex, arguments.markdown: table.markdown}
    written = {file: text() for file, text in texts.items() if file is not None}
    for file, text in written.items():
        _put(file, text)
    if arguments.plot:
        from vargpt_lightning.sweep.plots import plot

        plot(table, arguments.plot)
    if Path("-") not in written:
        show_table(folder, table, arguments.top, arguments.live)
    return 0


def _put(file: Path, text: str) -> None:
    if str(file) == "-":
        sys.stdout.write(text)
    else:
        write_bytes(file, text.encode())
