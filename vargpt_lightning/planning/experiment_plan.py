"""The plan of an experiment's stages on a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from vargpt_lightning.models.core.config import VARGPTConfig
from vargpt_lightning.models.parts import Given
from vargpt_lightning.modules.objectives import check_objective
from vargpt_lightning.planning.generation import GenerationPlan, plan_drawing
from vargpt_lightning.planning.layout import SHARDED
from vargpt_lightning.planning.search import ways_to_fit
from vargpt_lightning.planning.stage_plan import Choice, StagePlan, StagePlanner
from vargpt_lightning.planning.steps import build_empty
from vargpt_lightning.recipe.plan import PlanConfig
from vargpt_lightning.recipe.sharding import ShardingConfig
from vargpt_lightning.recipe.stage import Stage
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.gpus import Cluster, Gpu

STRATEGIES = ("single", "ddp", "fsdp", "fsdp2")


def strategy_on(name: str, cluster: Cluster) -> str:
    """Return the strategy that a name means on a cluster.

    Raises:
        UserError: for one that no plan is made for.
    """
    if cluster.count == 1:
        return "single"
    if name == "auto":
        return "ddp"
    if name == "single":
        raise UserError(f"trainer.strategy='single' with {cluster.count} GPUs; expected ddp, fsdp or fsdp2")
    if name not in STRATEGIES:
        raise UserError(f"trainer.strategy={name!r}: no plan is made for it; there are {', '.join(STRATEGIES)}")
    return name


def plan_stages(
    config: VARGPTConfig,
    stages: Sequence[Stage],
    settings: PlanConfig,
    cluster: Cluster,
    strategy: str,
    sharding: ShardingConfig,
    precision: str,
    search: bool = True,
) -> Iterator[StagePlan]:
    """Yield the plan of each stage; one that does not fit comes with the smallest changes that make it fit."""
    for stage in stages:
        check_objective(stage)  # told before minutes are spent on the stages before it
    for stage in stages:
        name = strategy_on(strategy, cluster)
        if stage.head == "tokenizer" and name in SHARDED:
            name = "ddp"  # as in training
        choice = Choice(name, sharding, stage.batch_size, stage.accumulate)
        planner = StagePlanner(build_empty(config.at_scales(stage.scales)), stage, settings, cluster, precision)
        plan = planner.plan(choice)
        if search and not plan.fits:
            plan.ways = ways_to_fit(planner, choice)
        yield plan


def plan_drawings(
    config: VARGPTConfig,
    precision: str,
    settings: PlanConfig,
    gpu: Gpu,
    batches: Sequence[int],
    prompt: int,
    parts: Given | None = None,
) -> list[GenerationPlan]:
    """Return the plans of drawing with parts of a sampler, for each number of pictures that are drawn together."""
    kind = torch.float32 if precision.startswith("32") else torch.bfloat16
    return list(plan_drawing(build_empty(config, kind), batches, gpu, settings.efficiency, prompt, parts))
