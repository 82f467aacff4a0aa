"""`vargpt data overlap`: evaluation records that are in the training data. Imports no torch."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from vargpt_lightning.evaluation.harness.data import chosen_modules, find_data
from vargpt_lightning.evaluation.overlap.hashes import NEAR
from vargpt_lightning.evaluation.overlap.job import Evaluated, find_overlap
from vargpt_lightning.evaluation.overlap.search import KINDS
from vargpt_lightning.utils.arguments import Parser, whole
from vargpt_lightning.utils.capacity import add_processes, asked_processes
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.paths import output_folder, user_path
from vargpt_lightning.utils.progress import working

EXAMPLE = """examples:
  vargpt data overlap data/llava-v1_5-mix665k --benchmarks gqa,textvqa --data data/benchmarks --processes 8
  vargpt data overlap data/mine/train --heldout data/mine/test --out overlap
"""


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    result = Parser(
        prog="vargpt data overlap",
        description="Find evaluation records in packed training data: by the hash of a picture's file, by what it "
        "looks like (also mirrored, scaled or compressed again), and by the words of the question. The same command "
        "resumes; shards that were compared before are not read again.",
        epilog=EXAMPLE,
    )
    result.add_argument("folders", nargs="+", type=user_path, metavar="DIR", help="a packed folder that is trained on")
    result.add_argument("--benchmarks", metavar="NAMES", help="names such as gqa,pope; all: every benchmark with data")
    result.add_argument("--data", type=Path, metavar="DIR", help="folder with a folder for each benchmark")
    result.add_argument(
        "--heldout", action="append", default=[], type=user_path, metavar="DIR", help="a packed folder held out"
    )
    result.add_argument(
        "--near", type=whole(0, NEAR), default=NEAR, metavar="N", help=f"bits of 128 of a near duplicate ({NEAR})"
    )
    result.add_argument("--out", type=user_path, default=Path("overlap"), metavar="DIR", help="folder (overlap)")
    add_processes(result, "shards compared in parallel (1)")
    return result


def main(argv: list[str]) -> int:
    """Compare, print the counts, and write the list."""
    arguments = parser().parse_args(argv)
    processes = asked_processes(arguments)
    if not arguments.benchmarks and not arguments.heldout:
        raise UserError("nothing to look for; expected --benchmarks NAMES with --data DIR, or --heldout DIR")
    modules = chosen_modules(arguments.benchmarks, arguments.data, None) if arguments.benchmarks else []
    data = find_data(modules, arguments.data, None) if modules else {}
    evaluated = Evaluated({each.NAME: (each, data[each.NAME]) for each in modules}, arguments.heldout)
    output_folder(arguments.out)
    with working("comparing") as step:

        def tell(text: str) -> None:
            step.text = text

        result = find_overlap(
            arguments.folders, evaluated, arguments.out, near=arguments.near, processes=processes, tell=tell
        )
    _print(result)
    print(f"list: {arguments.out / 'overlap.jsonl'}")
    return 0


def _print(result: dict[str, Any]) -> None:
    training = result["training"]
    print(f"compared with {training['records']:,} training records, {training['pictures']:,} pictures in them")
    for name, counts in result["sets"].items():
        found = [f"{counts[kind]:,} by {kind}" for kind in KINDS if counts[kind]]
        print(f"{name}: {counts['records']:,} records, of them {', '.join(found) or 'none found'}")
    broken = training.get("broken", 0) + result["evaluation"]["broken"]
    if broken:
        print(f"{broken:,} pictures could not be opened and were compared by their files alone")
