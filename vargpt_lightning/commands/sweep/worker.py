"""`vargpt sweep worker`: a worker on the trials of a planned sweep."""

from __future__ import annotations

import argparse
from pathlib import Path

from vargpt_lightning.runs.locks import LEASE_TIMEOUT
from vargpt_lightning.sweep.folder import SweepFolder
from vargpt_lightning.sweep.watch import tell
from vargpt_lightning.sweep.worker import work
from vargpt_lightning.utils.arguments import Parser, number
from vargpt_lightning.utils.capacity import positive


def main(argv: list[str]) -> int:
    """Work until no trial is left."""
    result = Parser(
        prog="vargpt sweep worker",
        description="Work on the trials of a planned sweep until none is left; start as many as there are machines. "
        "A worker that is killed loses nothing: another one resumes its trial.",
        epilog="example:\n  srun vargpt sweep worker sweeps/guidance",
    )
    result.add_argument("folder", type=Path, help="the sweep's folder")
    result.add_argument("--limit", type=positive, metavar="N", help="stop after so many trials")
    add_lease_timeout(result)
    arguments = result.parse_args(argv)
    work(SweepFolder(arguments.folder, arguments.lease_timeout), tell, arguments.limit)
    return 0


def add_lease_timeout(arguments: argparse.ArgumentParser) -> None:
    """Add when a worker counts as dead."""
    text = "seconds without a heartbeat after which a worker on another machine counts as dead (default: %(default)g)"
    names = ("--lease-timeout", "--patience")  # the second is the old one
    arguments.add_argument(
        *names, type=number(0, 10**9, above=True), default=LEASE_TIMEOUT, metavar="SECONDS", help=text
    )
