"""`vargpt sweep`: an experiment in many variants, each a run of its own; any number of processes work on it."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.live import Live

from vargpt_lightning.experiment.files import read_tree
from vargpt_lightning.runs.locks import PATIENCE
from vargpt_lightning.sweep.cells import make_cell, write_cell
from vargpt_lightning.sweep.folder import ENDED, Row, SweepFolder, Taken
from vargpt_lightning.sweep.launch import LocalWorkers, changes, submit
from vargpt_lightning.sweep.spec import DEFAULT_PROGRAM, Sweep, parse_sweep
from vargpt_lightning.sweep.table import SweepTable
from vargpt_lightning.sweep.tidy import tidy
from vargpt_lightning.sweep.trial import Outcome
from vargpt_lightning.sweep.worker import work
from vargpt_lightning.utils.arguments import Parser
from vargpt_lightning.utils.capacity import FLAG, TRAINING, check_processes, positive
from vargpt_lightning.utils.counted import counted
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import write_bytes
from vargpt_lightning.utils.yaml_text import load_yaml, told

DESCRIPTION = """Plan a sweep and run its trials; the same command again resumes it and adds new trials of the file.

  vargpt sweep FILE              plan and run here
  vargpt sweep worker FOLDER     work on a planned sweep, on any machine that sees its folder
  vargpt sweep show FOLDER       its table, also while it runs; CSV, LaTeX, a plot

examples:
  vargpt sweep experiments/sweeps/guidance.yaml --workers 2
  vargpt sweep experiments/sweeps/guidance.yaml --base experiments/debug.yaml --name try
  vargpt sweep experiments/sweeps/stages_left_out.yaml --launcher slurm --workers 8 --job slurm_partition=gpu
  vargpt sweep sweeps/guidance --retry
"""
SHOW_EXAMPLE = "example:\n  vargpt sweep show sweeps/guidance --csv guidance.csv --plot guidance.png"
REFRESH = 1.0


def main(argv: list[str]) -> int:
    """Run one of the three; return 0 when all trials have ended well, 1 when some have not."""
    if argv[:1] == ["worker"]:
        return _worker(argv[1:])
    if argv[:1] == ["show"]:
        return _show(argv[1:])
    arguments = parser().parse_args(argv)
    if arguments.launcher != "slurm":
        check_processes(arguments.workers, "--workers", TRAINING, arguments.oversubscribe)
    folder = _planned(arguments)
    if arguments.retry:
        print(f"failed trials to try again: {folder.retry()}", flush=True)
    if arguments.plan:
        return 0
    if arguments.launcher != "here":
        jobs = submit(folder, arguments.workers, arguments.launcher, _options(arguments.job))
        print(f"submitted: {', '.join(jobs)}\nwatch: vargpt sweep show {folder.path} --live", flush=True)
        return 0
    return _run_here(folder, arguments)


def parser() -> argparse.ArgumentParser:
    """Return the arguments of `vargpt sweep FILE`."""
    result = Parser(
        prog="vargpt sweep",
        usage="vargpt sweep FILE [--workers N] [OPTIONS]",
        description=DESCRIPTION,
    )
    result.add_argument("sweep", type=Path, metavar="FILE", help="the sweep file, or the folder of a planned sweep")
    result.add_argument("--workers", type=positive, default=1, metavar="N", help="trials at the same time (default 1)")
    result.add_argument(FLAG, action="store_true", help="start more workers than cores and memory hold")
    result.add_argument("--gpus", default="", metavar="0,1", help="GPUs to distribute over the workers")
    result.add_argument("--retry", action="store_true", help="try the failed trials again")
    result.add_argument("--plan", action="store_true", help="plan only; run nothing")
    result.add_argument("--no-check", action="store_true", help="do not check the experiments before the start")
    result.add_argument("--root", help="where the sweep's folder is made (default: the file's, or sweeps)")
    result.add_argument("--name", help="the folder's name (default: the file's)")
    result.add_argument(
        "--base", action="append", metavar="FILE", help="use this experiment instead of the file's base"
    )
    result.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a change for all trials")
    result.add_argument(
        "--reuse", action="append", metavar="DIR", help="runs whose stages are reused, instead of the file's"
    )
    result.add_argument("--seeds", type=positive, metavar="N", help="the seeds 0 to N - 1 instead of the file's")
    result.add_argument("--launcher", choices=("here", "slurm", "local"), default="here", help="slurm, local: submitit")
    result.add_argument("--job", action="append", default=[], metavar="KEY=VALUE", help="a parameter of submitit")
    _add_patience(result)
    return result


def _add_patience(arguments: argparse.ArgumentParser) -> None:
    text = "seconds without a heartbeat after which a worker on another machine counts as dead (default: %(default)g)"
    arguments.add_argument("--patience", type=float, default=PATIENCE, metavar="SECONDS", help=text)


def _options(words: Sequence[str]) -> dict[str, Any]:
    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UserError(f"{word!r}; expected KEY=VALUE")
        try:
            found[key] = load_yaml(value)
        except yaml.YAMLError as error:
            raise UserError(f"{word!r} {told(error)[1]}; expected KEY=VALUE with a value of YAML") from error
    return found


def _planned(arguments: argparse.Namespace) -> SweepFolder:
    """Plan what the file says, or take the folder as it is."""
    if arguments.sweep.is_dir():
        given = {"--base": arguments.base, "--set": arguments.set, "--seeds": arguments.seeds, "--name": arguments.name}
        given["--reuse"] = arguments.reuse
        if wrong := [name for name, value in given.items() if value]:
            raise UserError(f"{wrong[0]} changes the plan; expected the sweep file before it, not a planned folder")
        return SweepFolder(arguments.sweep, arguments.patience)
    sweep = _read(arguments)
    if not arguments.no_check and sweep.program == DEFAULT_PROGRAM:
        _check(sweep)
    folder, new = SweepFolder.make(sweep, Path(arguments.root or sweep.root) / sweep.name, arguments.patience)
    planned = len(folder.plan["cells"])
    print(f"sweep: {folder.path}\nplanned: {counted(planned, 'trial')}, {new} of them new", flush=True)
    if missing := [name for name in sweep.reuse if name not in folder.reuse()]:
        print(f"reuse: no runs in {', '.join(missing)} yet; nothing is taken over from there", flush=True)
    if left := folder.left_out():
        print(f"left out: {counted(left, 'trial')} of cells that the file no longer has", flush=True)
    return folder


def _read(arguments: argparse.Namespace) -> Sweep:
    """The file with what the command line changes of it."""
    file: Path = arguments.sweep
    tree = read_tree(file)
    if arguments.base:
        tree["base"] = [str(Path(base).resolve()) for base in arguments.base]
    if arguments.reuse:
        tree["reuse"] = arguments.reuse
    if arguments.seeds:
        key = tree["seeds"].get("key", "seed") if isinstance(tree.get("seeds"), dict) else "seed"
        tree["seeds"] = {"key": key, "values": list(range(arguments.seeds))}
    if arguments.set:
        tree["overrides"] = {**(tree.get("overrides") or {}), **_options(arguments.set)}
    if arguments.name:
        tree["name"] = arguments.name
    try:
        return parse_sweep(tree, file)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error


def _check(sweep: Sweep) -> None:
    """Read experiments as their trials would, until every value was in one: a mistake is told before all training.

    Raises:
        UserError: naming the cell, the key, its value and what was expected.
    """
    from vargpt_lightning.experiment.parser import load_experiment

    if sweep.sampled:
        cells = [make_cell(sweep, {key: _first(choice) for key, choice in sweep.space.items()}, sweep.seeds[0])]
    else:
        cells = [make_cell(sweep, values, sweep.seeds[0]) for values in _covering(sweep)]
    with tempfile.TemporaryDirectory() as temporary:
        for number, cell in enumerate(cells):
            file = Path(temporary) / f"{number}.yaml"
            write_cell(cell, file, "")
            try:
                load_experiment(["-c", str(file)])
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


def _run_here(folder: SweepFolder, arguments: argparse.Namespace) -> int:
    gpus = [name for name in arguments.gpus.split(",") if name]
    workers = LocalWorkers(folder, arguments.workers, gpus)
    console = Console()
    if console.is_terminal:
        with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
            rows = workers.run(lambda rows: live.update(SweepTable(folder.sweep, rows).rich(), refresh=True))
    else:
        before: dict[str, str] = {}
        rows = workers.run(lambda rows: _say(changes(rows, before), folder.sweep))
        Console(width=200).print(SweepTable(folder.sweep, rows).rich())
    if all(row.state in ENDED for row in rows):
        tidy(folder, rows)
    return 0 if all(row.state in ("finished", "pruned") for row in rows) else 1


def _say(rows: Any, sweep: Sweep) -> None:
    for row in rows:
        figures = ", ".join(f"{name} {value:.4g}" for name, value in row.measures.items())
        print(f"{row.state}: {row.name}  {figures if row.state == 'finished' else row.error}".rstrip(), flush=True)


def _worker(argv: list[str]) -> int:
    result = Parser(
        prog="vargpt sweep worker",
        description="Work on the trials of a planned sweep until none is left; start as many as there are machines. "
        "A worker that is killed loses nothing: another one resumes its trial.",
        epilog="example:\n  srun vargpt sweep worker sweeps/guidance",
    )
    result.add_argument("folder", type=Path, help="the sweep's folder")
    result.add_argument("--limit", type=positive, metavar="N", help="stop after so many trials")
    _add_patience(result)
    arguments = result.parse_args(argv)
    work(SweepFolder(arguments.folder, arguments.patience), _tell, arguments.limit)
    return 0


def _tell(taken: Taken, outcome: Outcome | None) -> None:
    stamp = time.strftime("%H:%M:%S")
    if outcome is None:
        print(f"{stamp} begins: {taken.name}", flush=True)
    else:
        print(f"{stamp} {outcome.state}: {taken.name} ({outcome.seconds:.0f} s) {outcome.error}".rstrip(), flush=True)


def _show(argv: list[str]) -> int:
    result = Parser(
        prog="vargpt sweep show",
        description="Show a sweep's table: mean and 95 % interval over the seeds, the best marked; the errors below.",
        epilog=SHOW_EXAMPLE,
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
        _show_table(folder, table, arguments)
    return 0


def _put(file: Path, text: str) -> None:
    if str(file) == "-":
        sys.stdout.write(text)
    else:
        write_bytes(file, text.encode())


def _show_table(folder: SweepFolder, table: SweepTable, arguments: argparse.Namespace) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    if not arguments.live:
        console.print(table.rich())
        return
    with Live(table.rich(), console=console, auto_refresh=False, vertical_overflow="visible") as live:
        rows: Sequence[Row] = table.rows
        while not all(row.state in ENDED for row in rows):
            time.sleep(REFRESH)
            rows = folder.rows()
            live.update(SweepTable(folder.sweep, rows, arguments.top).rich(), refresh=True)
