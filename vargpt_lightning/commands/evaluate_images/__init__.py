"""`vargpt evaluate images`: build a prompt file, sample pictures for it, and measure them.

Several processes share the work when torchrun starts the command; killed, the same command resumes.
"""

from __future__ import annotations

import argparse

from vargpt_lightning.commands.evaluate_images import follow, measure, prompts, run, sample
from vargpt_lightning.utils.arguments import Parser

PROG = "vargpt evaluate images"
FORMS = {
    "prompts": "build a prompt file from classes or from packed data",
    "sample": "let a system draw for every prompt",
    "measure": "measure a folder of drawings",
    "run": "sample and measure",
    "follow": "score how drawings follow prompts: GenEval, DPG-Bench, T2I-CompBench, WISE",
}
VERBS = {"prompts": prompts, "sample": sample, "measure": measure, "run": run, "follow": follow}
EXAMPLE = """examples:
  vargpt evaluate images prompts --folder imagenet/val --classes classes.json --out set/prompts.jsonl
  vargpt evaluate images run runs/openmoji --prompts set/prompts.jsonl --out out/openmoji
  vargpt evaluate images measure drawings --prompts set/prompts.jsonl --metrics fid,clip --out out/theirs
  vargpt evaluate images prompts --benchmark geneval --data data/geneval --out set/geneval.jsonl
  vargpt evaluate images follow drawn --benchmark geneval --data data/geneval --detector boxes.jsonl --out out
  vargpt evaluate images measure imagenet/val --metrics none --save-statistics val.npz --out out/val
"""


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    result = Parser(
        prog=PROG,
        description="Measure generated pictures: FID and its kin, CLIP score, prompt-following.",
        epilog=EXAMPLE,
    )
    forms = result.add_subparsers(dest="form", metavar="FORM", required=True)
    for name, module in VERBS.items():
        module.add_options(forms.add_parser(name, help=FORMS[name], description=_sentence(name)))
    return result


def _sentence(form: str) -> str:
    return f"{FORMS[form][0].upper()}{FORMS[form][1:]}."


def main(argv: list[str]) -> int:
    """Build, sample, measure; print what came out."""
    arguments = parser().parse_args(argv)
    return int(VERBS[arguments.form].main(arguments))
