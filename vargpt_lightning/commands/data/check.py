"""`vargpt data check`: a packed folder compared with its index. Exit code 2 when something is wrong."""

from __future__ import annotations

import argparse

from vargpt_lightning.data.packing.check import check_folder
from vargpt_lightning.utils.arguments import Parser
from vargpt_lightning.utils.capacity import add_processes, asked_processes
from vargpt_lightning.utils.counted import counted
from vargpt_lightning.utils.paths import user_path

EXAMPLE = """example:
  vargpt data check data/llava-v1_5-mix665k --processes 8
"""


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    result = Parser(
        prog="vargpt data check",
        description="Compare packed folders with what their indexes say: sizes, hashes, counts, offsets; parse each "
        "record and decode each picture. All problems are listed, and the exit code is then 2.",
        epilog=EXAMPLE,
    )
    result.add_argument("folders", nargs="+", type=user_path, metavar="DIR", help="a packed folder")
    add_processes(result, "shards checked in parallel (1)")
    result.add_argument("--no-decode", action="store_true", help="do not decode the pictures, which takes longest")
    return result


def main(argv: list[str]) -> int:
    """Check, list the problems, and return 2 if there are any."""
    arguments = parser().parse_args(argv)
    processes = asked_processes(arguments)
    wrong = 0
    for folder in arguments.folders:
        problems = 0
        for problem in check_folder(folder, decode=not arguments.no_decode, processes=processes):
            print(f"{folder}: {problem}", flush=True)
            problems += 1
        print(f"{folder}: {counted(problems, 'problem') if problems else 'complete, as packed'}")
        wrong += problems
    return 2 if wrong else 0
