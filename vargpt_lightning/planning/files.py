"""Plans as files: numbers as JSON, and a picture of each stage's memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vargpt_lightning.planning.generation import GenerationPlan
from vargpt_lightning.planning.plots import draw_memory
from vargpt_lightning.planning.stage_plan import StagePlan, as_json
from vargpt_lightning.utils.files import write_json
from vargpt_lightning.utils.gpus import Cluster


def write_stages(out: Path, cluster: Cluster, plans: Sequence[StagePlan]) -> list[str]:
    """Write the plan of each stage into a folder; return lines that say which files there are."""
    file = out / "plan.json"
    stages = [as_json(plan) for plan in plans]
    write_json(file, {"gpus": vars(cluster.gpu), "count": cluster.count, "stages": stages})
    pictures = [f"picture: {draw_memory(plan, out / f'memory-{plan.stage.name}.png')}" for plan in plans]
    return [*pictures, f"plan: {file}"]


def write_drawing(out: Path, plans: Sequence[GenerationPlan]) -> list[str]:
    """Write the plans of drawing into a folder; return lines that say which files there are."""
    file = out / "generation.json"
    write_json(file, [vars(plan) for plan in plans])
    return [f"plan: {file}"]
