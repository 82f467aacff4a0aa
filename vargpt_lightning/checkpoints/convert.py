"""Weights of one layout written in another, one tensor at a time. No torch before they are read."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.paths import output_folder
from vargpt_lightning.utils.progress import importing, working

if TYPE_CHECKING:  # refusals must not wait for torch
    from vargpt_lightning.checkpoints.open import Checkpoint
    from vargpt_lightning.models.core.scales import MapSize


def check_new(out: Path) -> None:
    """Make sure that a folder is new or empty, and can be written; raises UserError where it is not."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out}: already exists; expected a new folder or an empty one")
    output_folder(out)


def convert(
    source: str | Path,
    out: Path,
    to: str = "ours",
    *,
    limit: int = 5 * 1000**3,
    scales: tuple[MapSize, ...] | None = None,
) -> list[str]:
    """Write a checkpoint in another layout and return lines that say what was made.

    The folder appears when it is complete.

    Raises:
        UserError: the input is of no known kind or does not fit together, the layout has no place for it, the folder
            is not empty, or the disk is full.
    """
    check_new(out)
    with working(f"reading {source}"), importing():
        from vargpt_lightning.checkpoints.export import WRITERS
        from vargpt_lightning.checkpoints.lazy_tensors import Finite
        from vargpt_lightning.checkpoints.open import open_checkpoint

    checkpoint = open_checkpoint(source, scales)
    checkpoint.check()
    _check_constants(checkpoint)
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


def _check_constants(checkpoint: Checkpoint) -> None:
    """Make sure that the constants of a published file are those that our modules make themselves.

    Raises:
        UserError: one has other values, which would be lost.
    """
    import torch

    from vargpt_lightning.checkpoints.published import layouts
    from vargpt_lightning.models.core.scales import ScaleSchedule

    if not checkpoint.constants or "tokenizer" not in checkpoint.sections:
        return
    layout: layouts.Layout = "infinity" if checkpoint.bitwise else "var"
    parts: tuple[str, ...] = ("visual_decoder.",)
    if checkpoint.layout == "bsq":
        layout, parts = "bsq", ("image_tokenizer.",)
    elif checkpoint.layout == "vargpt_v1_1":
        layout, parts = "vargpt_v1_1", ("image_tokenizer.", "visual_decoder.")
    schedule = ScaleSchedule(tuple(checkpoint.sections["tokenizer"]["scales"]))
    own: dict[str, Any] = {key: value for key, value in checkpoint.state.items() if key.startswith(parts)}
    prefix = "vargpt_gen." if checkpoint.layout == "vargpt" else ""
    made = {f"{prefix}{key}": value for key, value in layouts.to_official(own, layout, schedule).items()}
    for key, stored in checkpoint.constants.items():
        if key in made and not torch.equal(stored.part().double(), made[key].double()):
            bits = checkpoint.bitwise and key.endswith("lfq.mask")
            makes = "its bits make" if bits else f"the scales {schedule.sizes} make"
            raise UserError(f"{checkpoint.source}: {key} has other values than {makes}")
