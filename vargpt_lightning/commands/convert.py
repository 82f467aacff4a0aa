"""`vargpt convert`: weights of one layout written in another, one tensor at a time."""

from __future__ import annotations

import argparse
from pathlib import Path

from vargpt_lightning.checkpoints.convert import check_new, convert
from vargpt_lightning.checkpoints.locate import check_place
from vargpt_lightning.inference.named import finished_stage
from vargpt_lightning.models.core.scales import MapSize
from vargpt_lightning.runs.folder import RunFolder
from vargpt_lightning.utils.arguments import Parser

TARGETS = ("ours", "vargpt", "vargpt_v1_1", "llava", "qwen2_vl", "causal", "var", "infinity")
DESCRIPTION = """Convert weights to another format. That of IN is recognised by its files and names of tensors.

IN is a file or folder, or, if there is none, a repository on the Hugging Face hub (OWNER/NAME or
OWNER/NAME/FILE): LLaVA-1.5, VARGPT-LLaVA-v1, Qwen2-VL, VARGPT-v1.1, a language model alone (LLaMA, Qwen2,
Qwen3, Mistral, SmolLM3, Phi, Gemma 3), a VAR (var_d30.pth), its image tokenizer (vae_ch160v4096z32.pth), an
Infinity (infinity_2b_reg.pth, or a checkpoint of its training), its image tokenizer (infinity_vae_d32reg.pth), a
folder that this command wrote, or a run of `vargpt fit`, whose last finished stage is taken.

layouts:
  ours         a folder that VARGPT.from_pretrained loads, or that init_from of an experiment names
  vargpt       the folder of the authors' VARGPTLlavaForConditionalGeneration
  vargpt_v1_1  the folder of the authors' VARGPTQwen2VLForConditionalGeneration
  llava        the part that answers, for LlavaForConditionalGeneration.from_pretrained of transformers
  qwen2_vl     the same of a Qwen2-VL, for Qwen2VLForConditionalGeneration.from_pretrained
  causal       the language model alone, for AutoModelForCausalLM.from_pretrained of transformers
  var          the parts that draw, as VAR's files: var_d*.pth and vae_*.pth
  infinity     the parts that draw bits, as Infinity's files: infinity_d*.pth and infinity_vae_d*.pth

examples:
  vargpt convert runs/openmoji --out exported
  vargpt convert llava-hf/llava-1.5-7b-hf --out weights/llava
  vargpt convert exported --out for-transformers --to llava
"""


def main(argv: list[str]) -> int:
    """Convert; return the exit code."""
    arguments = _parser().parse_args(argv)
    source, out = arguments.source, Path(arguments.out)
    check_new(out)
    if check_place(source) is None and (Path(source) / "run.json").is_file():
        finished_stage(RunFolder(source), None)
    lines = convert(source, out, arguments.to, limit=arguments.shard, scales=arguments.scales)
    print("\n".join(lines), flush=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="vargpt convert", description=DESCRIPTION)
    parser.add_argument("source", metavar="IN", help="weights: a file, a folder, a run, or a hub id")
    parser.add_argument("--out", required=True, metavar="DIR", help="output folder; must be new or empty")
    parser.add_argument("--to", choices=TARGETS, default="ours", help="layout of the result (default: ours)")
    parser.add_argument(
        "--shard",
        type=_size,
        default=5 * 1000**3,
        metavar="SIZE",
        help="largest size of a file, such as 500MB (default 5GB)",
    )
    parser.add_argument(
        "--scales",
        type=_scales,
        metavar="1,2,...",
        help="side lengths of the token maps, or HEIGHTxWIDTH, if the weights do not tell them",
    )
    return parser


def _size(text: str) -> int:
    units = {"KB": 1000, "MB": 1000**2, "GB": 1000**3}
    number, unit = text[:-2], text[-2:].upper()
    try:
        size = int(float(number) * units[unit])
    except (KeyError, OverflowError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a size such as 500MB or 5GB") from error
    if size < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a size above 0")
    return size


def _scales(text: str) -> tuple[MapSize, ...]:
    try:
        return tuple(_map_size(part) for part in text.split(","))
    except ValueError as error:
        expected = "side lengths such as 1,2,3,4, or heights and widths such as 1,2,3x2"
        raise argparse.ArgumentTypeError(f"{text!r}; expected {expected}") from error


def _map_size(text: str) -> MapSize:
    height, cross, width = text.partition("x")
    return (int(height), int(width)) if cross else int(height)
