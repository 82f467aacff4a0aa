"""Plans as tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from vargpt_lightning.gpus import Cluster, Gpu
    from vargpt_lightning.planning.generation import GenerationPlan
    from vargpt_lightning.planning.stage_plan import StagePlan

GB = 1e9
MEMORY = {
    "parameters": "parameters",
    "gathered": "gathered weights",
    "gradients": "gradients",
    "optimizer": "optimizer states",
    "average": "moving average",
    "activations": "activations",
    "temporaries": "temporaries",
    "inputs": "inputs",
}


def show_stages(name: str, cluster: Cluster, precision: str, plans: Sequence[StagePlan]) -> None:
    """Print the table of a training's stages, and below it what else there is to say."""
    console = Console()
    gpu = cluster.gpu
    title = f"{name} on {cluster.count} x {gpu.name} ({gpu.memory / GB:.0f} GB each), {precision}; GB are of one rank"
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for plan in plans:
        table.add_column(plan.stage.name, justify="right")
    for title, values in _rows(plans):
        table.add_row(title, *values, end_section=title in ("trained parameters", "inputs", "PEAK", "tokens a step"))
    console.print(table)
    for plan in plans:
        _notes(console, plan)


def _rows(plans: Sequence[StagePlan]) -> list[tuple[str, list[str]]]:
    rows = [
        ("strategy", [plan.choice.strategy for plan in plans]),
        ("checkpointing", [plan.choice.sharding.checkpointing for plan in plans]),
        ("batch x accumulation", [f"{plan.choice.batch_size} x {plan.choice.accumulate}" for plan in plans]),
        ("trained parameters", [f"{plan.trained / 1e6:,.0f} M" for plan in plans]),
    ]
    at_peak = [plan.memory.timeline.at_peak() for plan in plans]
    for kind, words in MEMORY.items():
        if any(each[kind] for each in at_peak):
            rows.append((words, [_gb(each[kind]) for each in at_peak]))
        if kind == "parameters" and any(plan.low_bits for plan in plans):
            rows.append(("  in few bits", [_gb(plan.low_bits) for plan in plans]))
    rows += [
        ("context, NCCL, cuBLAS", [_gb(_standing(plan)) for plan in plans]),
        ("fragments", [_gb(plan.memory.fragments) for plan in plans]),
        ("PEAK", [f"[{'green' if plan.fits else 'bold red'}]{_gb(plan.memory.peak)}[/]" for plan in plans]),
        ("at", [plan.memory.timeline.moment for plan in plans]),
        ("fits", ["[green]yes[/]" if plan.fits else "[bold red]no[/]" for plan in plans]),
        ("PFLOP a step", [f"{plan.work.flops / 1e15:.2f}" for plan in plans]),
        ("of which repeated", [f"{1 - plan.work.model_flops / plan.work.flops:.0%}" for plan in plans]),
        ("tokens a step", [f"{plan.work.tokens:,.0f}" for plan in plans]),
        ("steps", [f"{plan.steps:,}" for plan in plans]),
        ("seconds a step", [f"{plan.seconds:.2f}" for plan in plans]),
        ("at best", [f"{plan.work.lower_bound:.2f}" for plan in plans]),
        ("hours", [f"{plan.hours:,.1f}" for plan in plans]),
        ("GPU-hours", [f"{plan.hours * plan.cluster.count:,.0f}" for plan in plans]),
    ]
    return rows


def _standing(plan: StagePlan) -> int:
    return plan.memory.context + plan.memory.communication + plan.memory.kernel_cache


def _notes(console: Console, plan: StagePlan) -> None:
    operation, size = plan.memory.largest_operation
    console.print(
        f"{plan.stage.name}: efficiency {plan.efficiency:.0%} of the peak, of which the model's own "
        f"{plan.efficiency * plan.work.model_flops / plan.work.flops:.0%} (MFU); the largest operation, {operation}, "
        f"takes {_gb(size)} GB; memory is of rows with {plan.memory.row.text} text tokens"
    )
    if plan.memory.timeline.host:
        console.print(f"  {_gb(plan.memory.timeline.host)} GB of the host's memory for each rank")
    for guess in plan.assumed:
        console.print(f"  assumed of {guess}; plan.corpora says otherwise")
    if not plan.fits:
        over = plan.memory.peak - plan.cluster.gpu.memory
        console.print(f"  [bold red]does not fit[/], {_gb(over)} GB too much; {'it fits with' if plan.ways else ''}")
        for changes, _, peak in plan.ways:
            console.print(f"    {'; '.join(changes)}: {_gb(peak)} GB")
        if not plan.ways:
            console.print("    no change of sharding, checkpointing, batch or offload makes it fit: take more GPUs")


def show_drawing(name: str, gpu: Gpu, efficiency: float, prompt: int, plans: Sequence[GenerationPlan]) -> None:
    """Print the table of drawing pictures."""
    title = f"{name} draws on one {gpu.name} ({gpu.memory / GB:.0f} GB), prompts of {prompt} tokens"
    table = Table(title=title, title_justify="left")
    table.add_column("pictures together")
    for plan in plans:
        table.add_column(str(plan.batch), justify="right")
    rows = {
        "parameters, GB": [_gb(plan.parameters) for plan in plans],
        "caches, GB": [_gb(plan.caches) for plan in plans],
        "PEAK, GB": [_gb(plan.peak) for plan in plans],
        "fits": ["[green]yes[/]" if plan.fits else "[bold red]no[/]" for plan in plans],
        "TFLOP a picture": [f"{plan.flops / plan.batch / 1e12:.1f}" for plan in plans],
        "seconds a batch, at best": [f"{plan.at_least:.2f}" for plan in plans],
        f"seconds a batch, {efficiency:.0%} of that speed": [f"{plan.seconds:.2f}" for plan in plans],
        "seconds a picture": [f"{plan.seconds / plan.batch:.3f}" for plan in plans],
    }
    for words, values in rows.items():
        table.add_row(words, *values)
    Console().print(table)


def _gb(size: float) -> str:
    return f"{size / GB:.1f}" if size >= 0.1 * GB else f"{size / GB:.3f}"
