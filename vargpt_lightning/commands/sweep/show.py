"""`vargpt sweep show`: a sweep's table, for the terminal and for papers."""

from __future__ import annotations

import sys
from pathlib import Path

from vargpt_lightning.sweep.comparison.paired import PairedTable
from vargpt_lightning.sweep.folder import SweepFolder
from vargpt_lightning.sweep.table import SweepTable
from vargpt_lightning.sweep.watch import show_table
from vargpt_lightning.utils.arguments import Parser
from vargpt_lightning.utils.capacity import positive
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import write_bytes

EXAMPLE = """examples:
  vargpt sweep show sweeps/guidance --csv guidance.csv --plot guidance.png
  vargpt sweep show sweeps/samplers --against plain --markdown samplers.md --pareto samplers.png
"""


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
    result.add_argument(
        "--against", metavar="CELL", help="differences to this cell, such as a variant's name; in FILEs too"
    )
    result.add_argument(
        "--pareto", type=Path, metavar="FILE", help="write a plot of cost against gain: .png, .pdf, .svg"
    )
    result.add_argument("--axes", default="", metavar="COST,GAIN", help="its measures (one of seconds, and the first)")
    result.add_argument("--plot", type=Path, metavar="FILE", help="write a plot: .png, .pdf or .svg")
    arguments = result.parse_args(argv)
    folder = SweepFolder(arguments.folder)
    table = SweepTable(folder.sweep, folder.rows(), arguments.top)
    beside = PairedTable(table, arguments.against, folder.path / "trials") if arguments.against else None
    if beside is not None and arguments.latex:
        raise UserError("--latex: has no differences; expected --csv or --markdown with --against")
    shown = beside or table
    texts = {arguments.csv: shown.csv, arguments.latex: table.latex, arguments.markdown: shown.markdown}
    written = {file: text() for file, text in texts.items() if file is not None}
    for file, text in written.items():
        _put(file, text)
    if arguments.plot:
        from vargpt_lightning.sweep.plots import plot

        plot(table, arguments.plot)
    if arguments.pareto:
        from vargpt_lightning.sweep.comparison.pareto_plot import plot_pareto

        plot_pareto(table, arguments.pareto, arguments.axes, arguments.against or "")
    if Path("-") not in written:
        show_table(folder, table, arguments.top, arguments.live)
        if beside is not None:
            beside.show()
    return 0


def _put(file: Path, text: str) -> None:
    if str(file) == "-":
        sys.stdout.write(text)
    else:
        write_bytes(file, text.encode())
