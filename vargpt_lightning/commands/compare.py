"""`vargpt compare`: finished evaluations against each other, over the same questions. Imports no torch."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from vargpt_lightning.commands.options import benchmark_settings
from vargpt_lightning.evaluation.compare.check import ALLOWED
from vargpt_lightning.evaluation.compare.comparison import compare
from vargpt_lightning.evaluation.compare.systems import Scoring, read_systems, set_names, shared_sets
from vargpt_lightning.evaluation.compare.write import verdicts, write_comparison
from vargpt_lightning.utils.arguments import Parser, whole
from vargpt_lightning.utils.errors import UserError, hint
from vargpt_lightning.utils.paths import output_folder, user_path

EXAMPLE = """examples:
  vargpt compare runs/seed1 runs/seed2
  vargpt compare benchmarks/llava-1.5 benchmarks/llava-next runs/7b/benchmarks --benchmarks pope,gqa
  vargpt compare ours.jsonl theirs.jsonl --benchmarks mme --data data --out ours-and-theirs
"""


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    result = Parser(
        prog="vargpt compare",
        description="Compare finished evaluations over the same questions: the difference with a 95 % interval and a p "
        "value, wins and losses by kind, the questions that changed sides, and how many questions would show a "
        "difference of this size. The others are compared with the first.",
        epilog=EXAMPLE,
    )
    result.add_argument(
        "run",
        nargs="+",
        type=user_path,
        metavar="WHAT",
        help="a run, a folder that evaluate, score or evaluate images wrote, or a file of predictions",
    )
    result.add_argument(
        "--benchmarks", metavar="NAMES", help="only these, such as pope,questions/heldout; what a file answers"
    )
    result.add_argument("--data", type=Path, metavar="DIR", help="the benchmarks' data, to score files of predictions")
    result.add_argument("--protocol", metavar="NAME", help="of the scoring (the first that all were scored by)")
    result.add_argument("--style", metavar="NAME", help="prompt style of files of predictions (llava)")
    result.add_argument("--allow", default="", metavar="NAMES", help="compare although these differ: n, prompts")
    result.add_argument("--shown", type=whole(0, 1000), default=8, metavar="N", help="changed questions a set (8)")
    result.add_argument("--out", type=user_path, metavar="DIR", help="folder for the report (comparison)")
    return result


def main(argv: list[str]) -> int:
    """Compare, print what was found, and write the report."""
    arguments = parser().parse_args(argv)
    allow = [name.strip() for name in arguments.allow.split(",") if name.strip()]
    if wrong := [name for name in allow if name not in ALLOWED]:
        raise UserError(f"--allow {wrong[0]}: {hint(wrong[0], ALLOWED)}")
    out = arguments.out or Path("comparison")
    output_folder(out)
    arguments.limit, arguments.allow_partial, arguments.guess = None, None, None
    wanted = set_names(arguments.benchmarks)
    with tempfile.TemporaryDirectory(prefix="vargpt-compare-") as work:
        scoring = Scoring(arguments.benchmarks, arguments.data, Path(work), benchmark_settings(arguments))
        systems = read_systems(arguments.run, scoring)
        sets, left = shared_sets(systems, wanted, arguments.protocol)
        found = compare(systems, sets, allow, left)
        page = write_comparison(found, out, arguments.shown)
    for text in (*verdicts(found), *(f"note: {remark}" for remark in found.remarks)):
        print(text)
    print(f"report: {page}", flush=True)
    return 0
