"""Plans as tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from vargpt_lightning.planning.generation import GenerationPlan
    from vargpt_lightning.planning.stage_plan import StagePlan
    from vargpt_lightning.utils.gpus import Cluster, Gpu

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
    title = f"{name} on {cluster.count} x {gpu.name} ({gpu.memory / GB:.0f} GB each), {precision}; memory of a rank"
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for plan in plans:
        table.add_column(plan.stage.name, justify="right")
    for title, values in _rows(plans):
        table.add_row(title, *values, end_section=title in ("trained parameters", "inputs", "PEAK", "tokens a step"))
    console.print(table)
    if precision.startswith("bf16") and not gpu.bf16:
        console.print(f"{gpu.name} has no bf16 arithmetic: its speed is that of fp16, trainer.precision 16-mixed")
    for plan in plans:
        _notes(console, plan)


def _rows(plans: Sequence[StagePlan]) -> list[tuple[str, list[str]]]:
    rows = [
        ("strategy", [plan.choice.strategy for plan in plans]),
        ("checkpointing", [plan.choice.sharding.checkpointing for plan in plans]),
        ("batch x accumulation", [f"{plan.choice.batch_size} x {plan.choice.accumulate}" for plan in plans]),
        ("trained parameters", [_scaled(plan.trained) for plan in plans]),
    ]
    at_peak = [plan.memory.timeline.at_peak() for plan in plans]
    for kind, words in MEMORY.items():
        if any(each[kind] for each in at_peak):
            rows.append((words, [_bytes(each[kind]) for each in at_peak]))
        if kind == "parameters" and any(plan.low_bits for plan in plans):
            rows.append(("  in few bits", [_bytes(plan.low_bits) for plan in plans]))
    rows += [
        ("context, NCCL, cuBLAS", [_bytes(_standing(plan)) for plan in plans]),
        ("fragments", [_bytes(plan.memory.fragments) for plan in plans]),
        ("PEAK", [f"[{'green' if plan.fits else 'bold red'}]{_bytes(plan.memory.peak)}[/]" for plan in plans]),
        ("at", [plan.memory.timeline.moment for plan in plans]),
        ("fits", ["[green]yes[/]" if plan.fits else "[bold red]no[/]" for plan in plans]),
        ("FLOP a step", [_scaled(plan.work.flops) for plan in plans]),
        ("of which repeated", [f"{1 - plan.work.model_flops / plan.work.flops:.0%}" for plan in plans]),
        ("tokens a step", [f"{plan.work.tokens:,.0f}" for plan in plans]),
        ("steps", [f"{plan.steps:,}" for plan in plans]),
        ("time of a step", [_time(plan.seconds) for plan in plans]),
        ("at best", [_time(plan.work.lower_bound) for plan in plans]),
        ("time", [_time(plan.hours * 3600) for plan in plans]),
        ("GPU-hours", [_gpu_hours(plan.hours * plan.cluster.count) for plan in plans]),
    ]
    return rows


def _standing(plan: StagePlan) -> int:
    return plan.memory.context + plan.memory.communication + plan.memory.kernel_cache


def _notes(console: Console, plan: StagePlan) -> None:
    operation, size = plan.memory.largest_operation
    console.print(
        f"{plan.stage.name}: efficiency {plan.efficiency:.0%} of the peak, of which the model's own "
        f"{plan.efficiency * plan.work.model_flops / plan.work.flops:.0%} (MFU); the largest operation, {operation}, "
        f"takes {_bytes(size)}; memory is of rows with {plan.memory.row.text} text tokens"
    )
    if plan.memory.timeline.host:
        console.print(f"  {_bytes(plan.memory.timeline.host)} of the host's memory for each rank")
    for guess in plan.assumed:
        console.print(f"  assumed of {guess}; plan.corpora says otherwise")
    if not plan.fits:
        over = plan.memory.peak - plan.cluster.gpu.memory
        console.print(f"  [bold red]does not fit[/], {_bytes(over)} too much; {'it fits with' if plan.ways else ''}")
        for changes, _, peak in plan.ways:
            console.print(f"    {'; '.join(changes)}: {_bytes(peak)}")
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
        "parameters": [_bytes(plan.parameters) for plan in plans],
        "caches": [_bytes(plan.caches) for plan in plans],
        "PEAK": [_bytes(plan.peak) for plan in plans],
        "fits": ["[green]yes[/]" if plan.fits else "[bold red]no[/]" for plan in plans],
        "FLOP a picture": [_scaled(plan.flops / plan.batch) for plan in plans],
        "time of a batch, at best": [_time(plan.at_least) for plan in plans],
        f"time of a batch, {efficiency:.0%} of that speed": [_time(plan.seconds) for plan in plans],
        "time of a picture": [_time(plan.seconds / plan.batch) for plan in plans],
    }
    for words, values in rows.items():
        table.add_row(words, *values)
    Console().print(table)


def _scaled(number: float) -> str:
    """A number of parameters or operations with the letter of its magnitude: 12.3 k, 1.23 M, 4.56 G, ..."""
    for size, letter in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{_short(number / size)} {letter}"
    return f"{number:,.0f}"


def _time(seconds: float) -> str:
    """A time in the unit of its magnitude, from microseconds to hours."""
    for size, unit in ((7200, "h"), (120, "min"), (1, "s"), (1e-3, "ms")):
        if seconds >= size:
            return f"{_short(seconds / {'h': 3600, 'min': 60}.get(unit, size))} {unit}"
    return f"{_short(seconds / 1e-6)} us"


def _gpu_hours(hours: float) -> str:
    return _short(hours) if hours >= 0.01 else "< 0.01"


def _short(number: float) -> str:
    """Three figures; whole numbers from 100 on."""
    return f"{number:,.0f}" if number >= 100 or number == 0 else f"{float(f'{number:.3g}'):g}"


def _bytes(size: float) -> str:
    """Memory in the unit of its magnitude."""
    for unit, name in ((1e8, "GB"), (1e6, "MB"), (1e3, "KB")):
        if size >= unit:
            return f"{size / GB:,.1f} GB" if name == "GB" else f"{_short(size / unit)} {name}"
    return f"{size:.0f} bytes" if size else "0"
