"""`vargpt sweep`: an experiment in many variants, each a run of its own; any number of processes work on it."""

from __future__ import annotations

import argparse
from pathlib import Path

from vargpt_lightning.commands.sweep.show import main as show
from vargpt_lightning.commands.sweep.worker import add_lease_timeout
from vargpt_lightning.commands.sweep.worker import main as worker
from vargpt_lightning.sweep.changes import changed_sweep, read_values
from vargpt_lightning.sweep.check import check_cells
from vargpt_lightning.sweep.folder import SweepFolder
from vargpt_lightning.sweep.launch import submit
from vargpt_lightning.sweep.spec import DEFAULT_PROGRAM
from vargpt_lightning.sweep.watch import run_here
from vargpt_lightning.utils.arguments import Parser
from vargpt_lightning.utils.capacity import FLAG, TRAINING, check_processes, positive
from vargpt_lightning.utils.counted import counted
from vargpt_lightning.utils.errors import UserError

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


def main(argv: list[str]) -> int:
    """Run one of the three; return 0 when all trials have ended well, 1 when some have not."""
    if argv[:1] == ["worker"]:
        return worker(argv[1:])
    if argv[:1] == ["show"]:
        return show(argv[1:])
    arguments = parser().parse_args(argv)
    if arguments.launcher != "slurm":
        check_processes(arguments.workers, "--workers", TRAINING, arguments.oversubscribe)
    folder = _planned(arguments)
    if arguments.retry:
        print(f"failed trials to try again: {folder.retry()}", flush=True)
    if arguments.plan:
        return 0
    if arguments.launcher != "here":
        jobs = submit(folder, arguments.workers, arguments.launcher, read_values(arguments.job))
        print(f"submitted: {', '.join(jobs)}\nwatch: vargpt sweep show {folder.path} --live", flush=True)
        return 0
    gpus = [name for name in arguments.gpus.split(",") if name]
    return 0 if run_here(folder, arguments.workers, gpus) else 1


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
    add_lease_timeout(result)
    return result


def _planned(arguments: argparse.Namespace) -> SweepFolder:
    """Plan what the file says, or take the folder as it is."""
    if arguments.sweep.is_dir():
        given = {"--base": arguments.base, "--set": arguments.set, "--seeds": arguments.seeds, "--name": arguments.name}
        given["--reuse"] = arguments.reuse
        if wrong := [name for name, value in given.items() if value]:
            raise UserError(f"{wrong[0]} changes the plan; expected the sweep file before it, not a planned folder")
        return SweepFolder(arguments.sweep, arguments.lease_timeout)
    changes = {name: getattr(arguments, name) for name in ("base", "reuse", "seeds", "name")}
    sweep = changed_sweep(arguments.sweep, overrides=arguments.set, **changes)
    if not arguments.no_check and sweep.program == DEFAULT_PROGRAM:
        from vargpt_lightning.experiment.parser import load_experiment

        check_cells(sweep, load_experiment)
    folder, new = SweepFolder.make(sweep, Path(arguments.root or sweep.root) / sweep.name, arguments.lease_timeout)
    planned = len(folder.plan["cells"])
    print(f"sweep: {folder.path}\nplanned: {counted(planned, 'trial')}, {new} of them new", flush=True)
    if missing := [name for name in sweep.reuse if name not in folder.reuse()]:
        print(f"reuse: no runs in {', '.join(missing)} yet; nothing is reused from there", flush=True)
    if left := folder.left_out():
        print(f"left out: {counted(left, 'trial')} of cells that the file no longer has", flush=True)
    return folder
