"""`vargpt evaluate images run`: pictures drawn, and measured. Killed, the same command resumes."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from vargpt_lightning.commands.evaluate_images.measure import measure_drawings
from vargpt_lightning.commands.evaluate_images.options import (
    add_measuring,
    add_sampling,
    asked_prompts,
    check_given,
    measure_settings,
)
from vargpt_lightning.commands.evaluate_images.sample import add_system, check_drawer, draw
from vargpt_lightning.distributed.torchrun import own_device, shared_processes
from vargpt_lightning.models.core.devices import choose
from vargpt_lightning.utils.signals import ended_by_signals


def add_options(form: argparse.ArgumentParser) -> None:
    """Add the form's arguments."""
    add_system(form)
    add_sampling(form, out=False)
    add_measuring(form)


def main(arguments: Any) -> int:
    """Let the system draw, measure, and print what came out."""
    settings = measure_settings(arguments)
    prompts, left_out = asked_prompts(arguments)
    check_drawer(arguments)
    check_given(arguments)
    device = choose(arguments.device) if arguments.device is not None else None
    with ended_by_signals(), shared_processes() as processes:
        draw(arguments, prompts, processes)
        settings = replace(settings, device=str(device or own_device()))
        measure_drawings(arguments, arguments.out, settings, prompts, left_out, processes)
    return 0
