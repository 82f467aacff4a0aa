"""`vargpt evaluate export`: a benchmark's questions, ids and pictures for a system that nothing here can ask.

OUT/<benchmark>/questions.jsonl   id, benchmark, prompt, images (files below OUT/<benchmark>), max_new_tokens
OUT/<benchmark>/images/           each picture once

What the system says goes into a file of `id` and `output`, a line each; `vargpt score` takes it. Imports no torch.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from vargpt_lightning.commands.options import add_data_options
from vargpt_lightning.evaluation.harness.data import chosen_modules, find_data
from vargpt_lightning.evaluation.harness.export import QUESTIONS, export
from vargpt_lightning.utils.arguments import Parser, whole
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.paths import output_folder

EXAMPLE = """examples:
  vargpt evaluate export --benchmarks mme,pope --data data --out for-others
  vargpt score answers.jsonl --benchmark mme --data data        # with the same --limit and --style, if any
"""


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    result = Parser(
        prog="vargpt evaluate export",
        description="Write questions, ids and pictures of benchmarks for another system.",
        epilog=EXAMPLE,
    )
    result.add_argument("--benchmarks", required=True, metavar="NAMES", help="such as mmbench,pope, or all")
    add_data_options(result)
    result.add_argument("--out", type=Path, required=True, metavar="DIR", help="where questions and pictures go")
    result.add_argument("--limit", type=whole(1), metavar="N", help="the N questions that evaluate --limit asks")
    result.add_argument("--style", default="llava", metavar="NAME", help="of the prompts: llava (default), plain, ...")
    return result


def main(argv: list[str]) -> int:
    """Write them, and say how many there are."""
    arguments = parser().parse_args(argv)
    output_folder(arguments.out)
    modules = chosen_modules(arguments.benchmarks, arguments.data, arguments.hub_owner)
    data = find_data(modules, arguments.data, arguments.hub_owner)
    for module in modules:
        folder = arguments.out / module.NAME
        if (folder / QUESTIONS).exists():
            raise UserError(f"{folder / QUESTIONS} is there already; expected another --out")
        asked, left_out = export(module, data[module.NAME], folder, arguments.limit, arguments.style)
        lost = f", {left_out} left out, whose pictures do not decode" if left_out else ""
        print(f"{module.TITLE}: {asked} questions{lost}: {folder / QUESTIONS}", flush=True)
    return 0
