"""`vargpt evaluate images measure`: a folder of drawings measured. Killed, the same command resumes."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vargpt_lightning.commands.evaluate_images.options import (
    add_measuring,
    asked_prompts,
    check_given,
    measure_settings,
)
from vargpt_lightning.distributed.torchrun import own_device, shared_processes
from vargpt_lightning.inference.named import check_file
from vargpt_lightning.models.core.devices import choose
from vargpt_lightning.utils.paths import output_folder
from vargpt_lightning.utils.signals import ended_by_signals

if TYPE_CHECKING:  # the sub-command's help must not wait for torch
    from vargpt_lightning.distributed.group import Processes
    from vargpt_lightning.evaluation.images.instruct_set import Prompt
    from vargpt_lightning.evaluation.images.settings import MeasureSettings


def add_options(form: argparse.ArgumentParser) -> None:
    """Add the form's arguments."""
    form.add_argument("drawings", type=Path, metavar="DRAWINGS", help="a folder of pictures named by prompt id")
    form.add_argument("--prompts", type=Path, metavar="FILE", help="what was asked: for CLIP and paired references")
    add_measuring(form)


def main(arguments: Any) -> int:
    """Measure, and print what came out."""
    settings = measure_settings(arguments)
    prompts, left_out = asked_prompts(arguments)
    check_file(arguments.drawings, "a folder of pictures")
    check_given(arguments)
    output_folder(arguments.out)
    device = choose(arguments.device) if arguments.device is not None else None
    with ended_by_signals(), shared_processes() as processes:
        settings = replace(settings, device=str(device or own_device()))
        measure_drawings(arguments, arguments.drawings, settings, prompts, left_out, processes)
    return 0


def measure_drawings(
    arguments: Any,
    drawings: Path,
    settings: MeasureSettings,
    prompts: list[Prompt],
    left_out: list[str],
    processes: Processes,
) -> None:
    """Measure this process's share; the first one prints the figures."""
    from vargpt_lightning.evaluation.harness.progress import benchmark_progress
    from vargpt_lightning.evaluation.images.measures import measure
    from vargpt_lightning.evaluation.images.settings import RESULT

    with benchmark_progress(quiet=not processes.first) as progress:
        result = measure(
            drawings,
            arguments.out,
            settings,
            prompts=prompts,
            reference=arguments.reference,
            save_statistics=arguments.save_statistics,
            export_adm=arguments.export_adm,
            export_adm_statistics=arguments.export_adm_statistics,
            left_out=left_out,
            processes=processes,
            progress=progress,
            replace=arguments.replace,
        )
    if processes.first:
        for name, value in result["metrics"].items():
            print(f"{name:>16}  {value:.6g}")
        for mark in result["marks"]:
            print(f"* {mark}")
        print(f"n {result['n']}, variant {settings.variant}: {arguments.out / RESULT}")
