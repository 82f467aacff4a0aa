"""`vargpt convert`: weights of one layout written in another, one tensor at a time."""

from __future__ import annotations

import argparse
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vargpt_lightning.checkpoints.locate import check_place
from vargpt_lightning.inference.named import finished_stage
from vargpt_lightning.runs.folder import RunFolder
from vargpt_lightning.utils.arguments import Parser
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.paths import output_folder
from vargpt_lightning.utils.progress import importing, working

if TYPE_CHECKING:  # `--help` must not wait for torch
    from vargpt_lightning.checkpoints.open import Checkpoint

TARGETS = ("ours", "vargpt", "llava", "var")
DESCRIPTION = """Convert weights to another format. That of IN is recognised by its files and names of tensors.

IN is a file or folder, or, if there is none, a repository on the Hugging Face hub (OWNER/NAME or
OWNER/NAME/FILE): LLaVA-1.5, VARGPT-LLaVA-v1, a VAR (var_d30.pth), its image tokenizer (vae_ch160v4096z32.pth), a
folder that this command wrote, or a run of `vargpt fit`, whose last finished stage is taken.

layouts:
  ours    a folder that VARGPT.from_pretrained loads, or that init_from of an experiment names
  vargpt  the folder of the authors' VARGPTLlavaForConditionalGeneration
  llava   the part that answers, for LlavaForConditionalGeneration.from_pretrained of transformers
  var     the parts that draw, as VAR's files: var_d*.pth and vae_*.pth

examples:
  vargpt convert runs/openmoji --out exported
  vargpt convert llava-hf/llava-1.5-7b-hf --out weights/llava
  vargpt convert exported --out for-transformers --to llava
"""


def main(argv: list[str]) -> int:
    """Convert; return the exit code."""
    arguments = _parser().parse_args(argv)
    lines = convert(arguments.source, Path(arguments.out), arguments.to, limit=arguments.shard, scales=arguments.scales)
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
        help="side lengths of the token maps, if the weights do not tell them",
    )
    return parser


def _size(text: str) -> int:
    units = {"KB": 1000, "MB": 1000**2, "GB": 1000**3}
    number, unit = text[:-2], text[-2:].upper()
    try:
        size = int(float(number) * units[unit])
    except (KeyError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a size such as 500MB or 5GB") from error
    if size < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a size above 0")
    return size


def _scales(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}; expected side lengths such as 1,2,3,4") from error


def convert(
    source: str | Path, out: Path, to: str = "ours", *, limit: int = 5 * 1000**3, scales: tuple[int, ...] | None = None
) -> list[str]:
    """Write a checkpoint in another layout and return lines that say what was made.

    The folder appears when it is complete.

    Raises:
        UserError: the input is of no known kind or does not fit together, the layout has no place for it, the folder
            is not empty, or the disk is full.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out}: already exists; expected a new folder or an empty one")
    output_folder(out)
    if check_place(source) is None and (Path(source) / "run.json").is_file():
        finished_stage(RunFolder(source), None)
    with working(f"reading {source}"), importing():
        from vargpt_lightning.checkpoints.export import WRITERS
        from vargpt_lightning.checkpoints.lazy_tensors import Finite
        from vargpt_lightning.checkpoints.open import open_checkpoint

    checkpoint = open_checkpoint(source, scales)
    checkpoint.check()
    check_constants(checkpoint)
    checkpoint = replace(checkpoint, state={key: Finite(stored, key) for key, stored in checkpoint.state.items()})
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        notes = WRITERS[to](checkpoint, temporary, limit)
        if out.is_dir():
            out.rmdir()
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    numbers = sum(stored.shape.numel() for stored in checkpoint.state.values())
    held = f"{checkpoint.source}: {checkpoint.layout}, {len(checkpoint.state)} tensors, {numbers:,} numbers"
    return [held, f"  {', '.join(checkpoint.parts)}", *notes, f"written: {out} ({to})"]


def check_constants(checkpoint: Checkpoint) -> None:
    """Make sure that the constants of a published file are those that our modules make themselves.

    Raises:
        UserError: one has other values, which would be lost.
    """
    import torch

    from vargpt_lightning.checkpoints.published import layouts
    from vargpt_lightning.models.core.scales import ScaleSchedule

    if not checkpoint.constants or "tokenizer" not in checkpoint.sections:
        return
    schedule = ScaleSchedule(tuple(checkpoint.sections["tokenizer"]["scales"]))
    decoder: dict[str, Any] = {key: value for key, value in checkpoint.state.items() if key.startswith("visual_de")}
    prefix = "vargpt_gen." if checkpoint.layout == "vargpt" else ""
    made = {f"{prefix}{key}": value for key, value in layouts.to_official(decoder, "var", schedule).items()}
    for key, stored in checkpoint.constants.items():
        if key in made and not torch.equal(stored.part().double(), made[key].double()):
            raise UserError(f"{checkpoint.source}: {key} has other values than the scales {schedule.sizes} make")
