"""`vargpt plan`: memory, time and cost of an experiment on GPUs that are not there."""

from __future__ import annotations

import argparse
import os
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vargpt_lightning.utils.arguments import Parser, number, whole
from vargpt_lightning.utils.errors import UserError, hint
from vargpt_lightning.utils.paths import output_folder
from vargpt_lightning.utils.progress import Step, importing, working

if TYPE_CHECKING:  # the sub-command's help must not wait for torch
    from vargpt_lightning.experiment.schema import Experiment
    from vargpt_lightning.planning.generation import GenerationPlan
    from vargpt_lightning.planning.stage_plan import StagePlan
    from vargpt_lightning.recipe.stage import Stage
    from vargpt_lightning.utils.gpus import Cluster

DESCRIPTION = """Estimate what an experiment needs before you rent GPUs: memory of a rank, time, and whether it fits.

No weights and no GPU are needed. What does not fit comes with the smallest changes that make it fit. Every key of the
experiment is an option, as in `vargpt fit`.

examples:
  vargpt plan experiments/vargpt_7b.yaml --gpus 8xH100-80GB
  vargpt plan experiments/vargpt_7b.yaml --gpus 4xA100-40GB --stage generation --trainer.sharding.checkpointing full
  vargpt plan experiments/vargpt_7b.yaml --gpus H100 --generate --batch 16
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `vargpt plan`; what it does not know belongs to the experiment."""
    parser = Parser(prog="vargpt plan", description=DESCRIPTION)
    parser.add_argument("experiment", help="experiment file")
    parser.add_argument("--gpus", help="such as 8xH100-80GB, from the catalogue; default: plan.gpus of the experiment")
    parser.add_argument("--catalogue", type=Path, help="another file of GPUs, like vargpt_lightning/utils/gpus.yaml")
    parser.add_argument("--stage", action="append", help="plan only this stage; can be repeated")
    parser.add_argument(
        "--efficiency",
        type=number(0, 1, above=True),
        help="share of the GPUs' peak that is reached; default: plan.efficiency, or 0.4",
    )
    parser.add_argument("--generate", action="store_true", help="plan drawing instead of training")
    parser.add_argument(
        "--batch", type=whole(1, 100_000), action="append", help="pictures drawn together, with --generate"
    )
    parser.add_argument("--prompt", type=whole(1, 100_000), default=64, help="text tokens of a prompt, with --generate")
    parser.add_argument("--no-search", action="store_true", help="do not look for changes that make a stage fit")
    parser.add_argument("--out", type=Path, help="folder for plan.json and a picture of each stage's memory")
    return parser


def main(argv: list[str]) -> int:
    """Plan, print, write; return 0, or 1 when a stage does not fit."""
    options, rest = build_parser().parse_known_args(argv)
    began = time.monotonic()
    warnings.filterwarnings("ignore", message=".*self.trainer.*|.*not registered.*")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from vargpt_lightning.utils.gpus import catalogue, parse_cluster

    known = catalogue(options.catalogue) if options.catalogue else None
    if options.gpus:
        parse_cluster(options.gpus, known)
    from vargpt_lightning.experiment.parser import load_experiment

    experiment = load_experiment(["-c", options.experiment, *rest])
    asked = options.gpus or experiment.plan.gpus
    if not asked:
        raise UserError("--gpus: nothing given; expected such as 8xH100-80GB")
    cluster = parse_cluster(asked, known)
    stages = _stages(experiment, options)
    if options.efficiency is not None:
        experiment.plan.efficiency = options.efficiency
    if options.out:
        output_folder(options.out)
    with working(f"planning {options.experiment} for {cluster.count} x {cluster.gpu.name}") as step:
        with importing():
            import torch  # noqa: F401
        if options.generate:
            drawings = _plan_drawing(experiment, cluster, options)
        else:
            plans = _plan_training(experiment, stages, cluster, options, step)
    if options.generate:
        return _tell_drawing(experiment, cluster, options, drawings, began)
    return _tell_training(experiment, cluster, options, plans, began)


def _stages(experiment: Experiment, options: Any) -> list[Stage]:
    """The stages that are planned."""
    names = [stage.name for stage in experiment.stages]
    if unknown := [name for name in options.stage or [] if name not in names]:
        raise UserError(f"--stage: {unknown[0]!r} is not a stage; {hint(unknown[0], names)}")
    return [stage for stage in experiment.stages if stage.name in (options.stage or names)]


def _plan_training(
    experiment: Experiment, stages: list[Stage], cluster: Cluster, options: Any, step: Step
) -> list[StagePlan]:
    from vargpt_lightning.planning.experiment_plan import plan_stages

    trainer, said = experiment.trainer, step.text
    shared = (cluster, trainer.strategy, trainer.sharding, trainer.precision)
    plans: list[StagePlan] = []
    for plan in plan_stages(experiment.model, stages, experiment.plan, *shared, search=not options.no_search):
        plans.append(plan)
        step.text = f"{said}: {len(plans)} of {len(stages)} stages"
    return plans


def _tell_training(experiment: Experiment, cluster: Cluster, options: Any, plans: list[StagePlan], began: float) -> int:
    from vargpt_lightning.planning.files import write_stages
    from vargpt_lightning.planning.tables import show_stages

    show_stages(experiment.run.name or "", cluster, experiment.trainer.precision, plans)
    _tell_files(write_stages(options.out, cluster, plans) if options.out else [], began)
    return 0 if all(plan.fits for plan in plans) else 1


def _plan_drawing(experiment: Experiment, cluster: Cluster, options: Any) -> list[GenerationPlan]:
    from vargpt_lightning.planning.experiment_plan import plan_drawings

    precision, batches = experiment.trainer.precision, options.batch or [1, 8, 32]
    parts = experiment.sampling.given_parts
    return plan_drawings(experiment.model, precision, experiment.plan, cluster.gpu, batches, options.prompt, parts)


def _tell_drawing(
    experiment: Experiment, cluster: Cluster, options: Any, plans: list[GenerationPlan], began: float
) -> int:
    from vargpt_lightning.planning.files import write_drawing
    from vargpt_lightning.planning.tables import show_drawing

    show_drawing(experiment.run.name or "", cluster.gpu, experiment.plan.efficiency, options.prompt, plans)
    _tell_files(write_drawing(options.out, plans) if options.out else [], began)
    return 0 if all(plan.fits for plan in plans) else 1


def _tell_files(lines: list[str], began: float) -> None:
    for line in lines:
        print(line)
    print(f"planned in {time.monotonic() - began:.0f} s")
