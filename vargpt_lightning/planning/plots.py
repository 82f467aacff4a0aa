"""A stage's memory over one step as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vargpt_lightning.evaluation.base.plot_texts import plain_texts

if TYPE_CHECKING:
    from vargpt_lightning.planning.stage_plan import StagePlan

ORDER = ("parameters", "optimizer", "average", "gradients", "gathered", "activations", "temporaries", "inputs")
COLOURS = {
    "standing": "#b0b0b0",
    "parameters": "#4c72b0",
    "optimizer": "#8172b3",
    "average": "#937860",
    "gradients": "#c44e52",
    "gathered": "#64b5cd",
    "activations": "#55a868",
    "temporaries": "#dd8452",
    "inputs": "#ccb974",
}
POINTS = 1200


def draw_memory(plan: StagePlan, file: Path) -> Path:
    """Draw what one rank holds over a step, kind by kind, with the peak and the GPU's memory; return the file."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    memory, timeline = plan.memory, plan.memory.timeline
    rows = len(timeline.total_R)
    edges = np.unique(np.linspace(0, rows, min(POINTS, rows) + 1).astype(int))
    at = edges[:-1]
    standing = memory.context + memory.communication + memory.kernel_cache + memory.fragments
    layers = {"standing": np.full(len(at), standing / 1e9)}
    for kind in ORDER:
        if timeline.kinds[kind].any():
            layers[kind] = np.maximum.reduceat(timeline.kinds[kind], at) / 1e9
    figure, axes = plt.subplots(figsize=(10, 5), constrained_layout=True)
    names = {"standing": "context, NCCL, fragments", "gathered": "gathered weights"}
    x = at / rows * 100
    axes.stackplot(
        x, *layers.values(), labels=[names.get(kind, kind) for kind in layers],
        colors=[COLOURS[kind] for kind in layers], linewidth=0,
    )  # fmt: skip
    limit, peak = plan.cluster.gpu.memory / 1e9, memory.peak / 1e9
    axes.axhline(limit, color="black", linestyle="--", linewidth=1)
    axes.text(0.5, limit, f" {plan.cluster.gpu.name}", va="bottom", fontsize=9)
    where = timeline.peak_row / rows * 100
    axes.plot([where], [peak], "v", color="black", markersize=7)
    axes.annotate(
        f"peak {peak:.1f} GB\n{timeline.moment}", (where, peak), textcoords="offset points",
        xytext=(8 if where < 60 else -8, 8), ha="left" if where < 60 else "right", fontsize=9,
    )  # fmt: skip
    for mark in timeline.trace.marks:
        if mark.what == "phase":
            begin = mark.row / rows * 100
            left = begin < 90
            axes.axvline(begin, color="black", linewidth=0.6)
            axes.text(
                begin + (0.3 if left else -0.3), max(limit, peak) * 1.19, mark.name, fontsize=9, va="top",
                ha="left" if left else "right",
            )  # fmt: skip
    axes.set(xlim=(0, 100), ylim=(0, max(limit, peak) * 1.2), xlabel="operations of a step, %", ylabel="GB on a rank")
    axes.set_title(f"{plan.stage.name}: {plan.cluster.count} x {plan.cluster.gpu.name}, {plan.choice.strategy}, "
                   f"batch {plan.choice.batch_size}, checkpointing {plan.choice.sharding.checkpointing}")  # fmt: skip
    figure.legend(loc="outside lower center", fontsize=8, ncols=len(layers))
    file.parent.mkdir(parents=True, exist_ok=True)
    plain_texts(figure).savefig(file, dpi=110)
    plt.close(figure)
    return file
