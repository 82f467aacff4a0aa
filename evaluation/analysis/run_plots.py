"""Figures of one run for notebooks: curves of its stages, throughput, use of the codebook. Imports no torch.

All take the table `metrics` of `results.load_runs`, narrowed to one run, and return matplotlib figures that are in no
way bound to pyplot. Where nothing was logged, the figure says so.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vargpt_lightning.evaluation.base.plot_texts import plain_texts
from vargpt_lightning.evaluation.reports.curves import Palette, draw_curves, panels, smoothed, style_axes
from vargpt_lightning.runs.folder import MetricRow
from vargpt_lightning.utils.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SERIES = ("#2c7a57", "#d2762a", "#3a6db3", "#9b4f8c", "#8a7a22", "#6d675d")
PRINT = Palette(SERIES, ink="#24211c", faint="#736d62", line="#e5dfd3", accent="#2c7a57")
"""The colours of the report on white paper."""
RATES = {
    "samples_per_s": "samples a second",
    "image_tokens_per_s": "image tokens a second",
    "text_tokens_per_s": "text tokens a second",
    "data_wait": "share of time that waits for data",
    "padding": "share of positions that is padding",
    "mfu": "share of the device's peak",
}
USAGE = re.compile(r"codebook_usage_scale_(\d+)$")


def new_figure(
    rows: int, columns: int, width: float = 4.6, height: float = 2.9, heights: Sequence[float] | None = None
) -> tuple[Figure, list[Axes]]:
    """An empty figure of panels of a mean size in inches, row by row; `heights` are those of the rows in proportion."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * rows), layout="constrained", dpi=110)
    axes = list(figure.subplots(rows, columns, squeeze=False, height_ratios=heights).flat)
    for each in axes:
        style_axes(each, PRINT)
    return figure, axes


def note_figure(text: str) -> Figure:
    """A sentence in place of a figure that has nothing to show."""
    figure, (axes,) = new_figure(1, 1, width=8.0, height=0.5)
    axes.set_axis_off()
    axes.text(0, 0.5, text, va="center", color=PRINT.faint)
    return plain_texts(figure)


def stage_figure(metrics: pd.DataFrame, stage: str) -> Figure:
    """The curves of one stage: losses, shares, and what there is of each scale.

    Raises:
        UserError: the run has no such stage.
    """
    rows = metrics[metrics["stage"] == stage]
    if rows.empty:
        there = ", ".join(map(str, metrics["stage"].unique())) or "none"
        raise UserError(f"stage {stage!r}: it logged nothing; stages that did: {there}")
    charts = panels([MetricRow(*row) for row in zip(rows["step"], rows["name"], rows["value"], strict=True)])
    if not charts:
        return note_figure(f"{stage}: no number was logged twice yet")
    figure, axes = new_figure(1, len(charts))
    for each, (title, series) in zip(axes, charts.items(), strict=True):
        draw_curves(each, title, series, PRINT)
    figure.suptitle(stage, x=0.0, ha="left", fontsize=11, fontweight="bold", color=PRINT.ink)
    return plain_texts(figure)


def throughput_figure(metrics: pd.DataFrame) -> Figure:
    """What was done a second, and what time and memory went to, over the steps of all stages one after another."""
    rates = metrics[metrics["name"].astype(str).str.startswith("throughput/")]
    names = [name for name in RATES if (rates["name"] == f"throughput/{name}").any()]
    if not names:
        return note_figure("no throughput was logged: the run has trained nothing itself yet")
    stages = list(dict.fromkeys(rates["stage"]))
    figure, axes = new_figure((len(names) + 2) // 3, min(3, len(names)))
    for each, name in zip(axes, names, strict=False):
        offset = 0
        for place, stage in enumerate(stages):
            own = rates[(rates["stage"] == stage) & (rates["name"] == f"throughput/{name}")]
            steps, colour = own["step"] + offset, SERIES[place % len(SERIES)]
            each.plot(steps, own["value"], color=colour, alpha=0.25, linewidth=0.8)
            each.plot(steps, smoothed(list(own["value"])), color=colour, linewidth=1.7, label=str(stage))
            offset += int(metrics.loc[metrics["stage"] == stage, "step"].max())
        each.set_title(RATES[name], loc="left", fontsize=9.5, color=PRINT.ink)
        each.set_ylim(bottom=0)
        each.set_xlim(0, offset)
        each.set_xlabel("steps of all stages", fontsize=8.5, color=PRINT.faint)
    for each in axes[len(names) :]:
        each.set_visible(False)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(stages), frameon=False)
    return plain_texts(figure)


def codebook_figure(metrics: pd.DataFrame) -> Figure:
    """How many of the codes each scale uses, in per cent: over the steps, and at the end."""
    rows = metrics.assign(scale=metrics["name"].astype(str).str.extract(USAGE, expand=False)).dropna(subset="scale")
    if rows.empty:
        return note_figure("no codebook usage was logged: it is every hundred steps of the image tokenizer's training")
    rows = rows.assign(scale=rows["scale"].astype(int))
    figure, (over, end) = new_figure(1, 2)
    scales = sorted(rows["scale"].unique())
    last = []
    for place, scale in enumerate(scales):
        own = rows[rows["scale"] == scale].sort_values("step")
        strength = 0.25 + 0.75 * (place + 1) / len(scales)
        over.plot(own["step"], own["value"], color=PRINT.accent, alpha=strength, linewidth=1.7)
        last.append(float(own["value"].iloc[-1]))
    over.set_title("codes in use, per cent, coarse (faint) to fine (strong)", loc="left", fontsize=9.5)
    over.set_xlabel("steps", fontsize=8.5, color=PRINT.faint)
    end.bar([str(scale) for scale in scales], last, color=PRINT.accent)
    for place, value in enumerate(last):
        end.text(place, value, f"{value:.0f}", ha="center", va="bottom", fontsize=8, color=PRINT.ink)
    end.set_title("codes in use at the end, per cent", loc="left", fontsize=9.5)
    end.set_xlabel("scale", fontsize=8.5, color=PRINT.faint)
    for each in (over, end):
        each.set_ylim(0, 108)
    return plain_texts(figure)
