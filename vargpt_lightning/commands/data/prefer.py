"""`vargpt data prefer`: pairs of a run's own drawings, the one that a judge prefers beside the other."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from vargpt_lightning.evaluation.images.instruct_set import read_requests
from vargpt_lightning.evaluation.systems.open import check_system
from vargpt_lightning.evaluation.systems.scorers import MARGINS, checked_name, find_scorer
from vargpt_lightning.utils.arguments import MOST, Parser, device_name, more_options, number, seed_number, whole
from vargpt_lightning.utils.counted import counted
from vargpt_lightning.utils.paths import output_folder, user_path
from vargpt_lightning.utils.progress import importing
from vargpt_lightning.utils.signals import ended_by_signals

EXAMPLE = """examples:
  vargpt data prefer runs/scenes --prompts requests.txt --judge composition --count 8 --out data/pairs
  vargpt data prefer runs/openmoji --prompts prompts.jsonl --judge identification:runs/openmoji/evaluation \\
      --out data/pairs

A judge is a scorer of docs/samplers.md. Prompts are a text file with a request a line, or what `vargpt evaluate images
prompts` writes. To resume an interrupted command, run it again.
"""


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    result = Parser(
        prog="vargpt data prefer",
        description="Make preference pairs: a run draws several pictures of each prompt, a judge scores them, and the "
        "best goes beside the worst. Ties and prompts that the judge is not sure of are left out and counted. "
        "OUT/pairs.json has the pairs in sharegpt's form, OUT/index.html shows them.",
        epilog=EXAMPLE,
    )
    add = result.add_argument
    add("model", metavar="RUN", help="a run folder, or another system that draws")
    add("--prompts", type=user_path, required=True, metavar="FILE", help="requests: .txt, one a line, or .jsonl")
    add("--judge", required=True, metavar="NAME", help=f"one of {', '.join(MARGINS)}, most as NAME:WHAT")
    add("--out", type=user_path, required=True, metavar="DIR", help="where drawings, scores and pairs go")
    add("--count", type=whole(2, 10_000), default=4, metavar="N", help="drawings of each prompt (4)")
    add("--margin", type=number(0, MOST), metavar="X", help="scores must differ by more; the judge's own by default")
    add("--least", type=number(-MOST, MOST), metavar="X", help="what a chosen drawing must score (anything)")
    add("--pairs", type=whole(1, 5000), default=1, metavar="N", help="pairs of a prompt, at most (1)")
    add("--limit", type=whole(1), metavar="N", help="the first N prompts")
    add("--draw-batch", type=whole(1, 2**20), default=16, metavar="N", help="pictures drawn together (16)")
    add("--seed", type=seed_number, default=0, metavar="S", help="base of all seeds (0)")
    add("--device", type=device_name, metavar="NAME", help="such as cpu or cuda:0 (a GPU when there is one)")
    add("--option", action="append", default=[], metavar="KEY=VALUE", help="of the system, such as cfg=1 or stage=NAME")
    return result


def main(argv: list[str]) -> int:
    """Draw, judge, pair, and print what came of it."""
    arguments = parser().parse_args(argv)
    prompts = read_requests(arguments.prompts, arguments.limit)
    kind, _ = checked_name(arguments.judge)
    options = more_options(arguments.option)
    check_system(arguments.model, options.get("stage"))
    output_folder(arguments.out)
    with importing():
        from vargpt_lightning.evaluation.harness.progress import benchmark_progress
        from vargpt_lightning.evaluation.preferences.job import make_pairs
        from vargpt_lightning.evaluation.preferences.page import write_page
        from vargpt_lightning.evaluation.preferences.pairs import PairRules
        from vargpt_lightning.evaluation.systems.open import open_system

    margin = MARGINS[kind] if arguments.margin is None else arguments.margin
    with ended_by_signals(), benchmark_progress() as progress:
        judged, counts = make_pairs(
            open_system(arguments.model, device=arguments.device, **options),
            prompts,
            arguments.judge,
            lambda: find_scorer(arguments.judge),
            arguments.out,
            count=arguments.count,
            rules=PairRules(margin, arguments.least, arguments.pairs),
            batch_size=arguments.draw_batch,
            seed=arguments.seed,
            progress=progress,
        )
    page = write_page(arguments.out, judged, counts, Path(arguments.model).name)
    _print(counts, arguments.out, page)
    return 0


def _print(counts: dict[str, Any], out: Path, page: Path) -> None:
    print(
        f"{counted(counts['pairs'], 'pair')} of {counted(counts['kept'], 'prompt')}; {counts['tied']:,} tied, "
        f"{counts['unsure']:,} unsure, {counts['single']:,} with fewer than two pictures; "
        f"{counts['drawn']:,} of {counted(counts['asked'], 'drawing')}"
    )
    print(f"pairs: {out / 'pairs.json'}")
    print(f"page: {page}")
