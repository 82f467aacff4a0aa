"""`vargpt evaluate images sample`: a system draws for every prompt. Killed, the same command resumes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vargpt_lightning.commands.evaluate_images.options import add_sampling, asked_prompts
from vargpt_lightning.distributed.torchrun import own_device, shared_processes
from vargpt_lightning.models.core.devices import choose
from vargpt_lightning.utils.arguments import more_options
from vargpt_lightning.utils.counted import counted
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.paths import output_folder
from vargpt_lightning.utils.signals import ended_by_signals

if TYPE_CHECKING:  # the sub-command's help must not wait for torch
    from vargpt_lightning.distributed.group import Processes
    from vargpt_lightning.evaluation.images.instruct_set import Prompt


def add_options(form: argparse.ArgumentParser) -> None:
    """Add the form's arguments."""
    add_system(form)
    add_sampling(form)


def add_system(form: argparse.ArgumentParser) -> None:
    """Add who draws, and what."""
    form.add_argument("model", metavar="MODEL", help="a run folder, a model's directory, or another system")
    form.add_argument("--prompts", type=Path, required=True, metavar="FILE", help="the prompt file")


def main(arguments: Any) -> int:
    """Let the system draw."""
    prompts, _ = asked_prompts(arguments)
    check_drawer(arguments)
    if arguments.device is not None:
        choose(arguments.device)
    with ended_by_signals(), shared_processes() as processes:
        draw(arguments, prompts, processes)
    return 0


def check_drawer(arguments: Any) -> None:
    """Make sure that the system is there, and that drawings can be written, before torch is imported."""
    from vargpt_lightning.evaluation.systems.open import check_system

    check_system(arguments.model, more_options(arguments.option).get("stage"))
    output_folder(arguments.out)


def draw(arguments: Any, prompts: list[Prompt], processes: Processes) -> None:
    """Let the system draw this process's share; the first one says how many pictures there are."""
    from vargpt_lightning.evaluation.base.protocols import ImageModel
    from vargpt_lightning.evaluation.harness.progress import benchmark_progress
    from vargpt_lightning.evaluation.images.picture_runs import draw_pictures
    from vargpt_lightning.evaluation.systems.open import open_system

    device = arguments.device or (own_device() if processes.world > 1 else None)
    system = open_system(arguments.model, device=device, **more_options(arguments.option))
    if not isinstance(system, ImageModel):
        raise UserError(f"{arguments.model}: this system draws no pictures; expected one that does")
    with benchmark_progress(quiet=not processes.first) as progress:
        found = draw_pictures(
            system,
            prompts,
            arguments.out,
            batch_size=arguments.draw_batch,
            seed=arguments.seed,
            text=arguments.text,
            processes=processes,
            progress=progress,
        )
    if processes.first:
        none = f", {counted(found.without_picture, 'answer')} without one" if found.without_picture else ""
        print(f"{counted(found.pictures, 'picture')} for {counted(found.prompts, 'prompt')}{none}: {arguments.out}")
