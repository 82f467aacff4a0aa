"""The radar chart of the benchmarks: one polygon a model, each axis on its own range. Imports no torch.

Papers of this field draw it so. An axis has its own range, since MME's points and MMMU's per cent share no scale: the
centre is no zero, and areas mean nothing. Each axis therefore says its ends, and the values stand at its tip.
matplotlib draws it on plain axes: its polar ones are round and have one scale.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vargpt_lightning.evaluation.base.plot_texts import plain_texts
from vargpt_lightning.evaluation.reports import published
from vargpt_lightning.evaluation.reports.benchmark_measured import COLUMNS, Measured
from vargpt_lightning.utils.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AXES = ("mmbench", "seedbench", "mmmu", "pope", "mme", "gqa", "textvqa", "vqav2", "scienceqa_img", "okvqa", "vizwiz")
OURS = ("#1f6f4c", "#c2541d", "#2a5ca8", "#8a3d80", "#776a12", "#474239")
THEIRS = ("#8d867a", "#b59a3c", "#7d93b5", "#b08aa8")
CENTRE = 0.22  # where the low end of each axis is, as a share of the radius
FEWEST = 3  # axes that make a polygon


@dataclass(frozen=True)
class Polygon:
    """A model's values on the tables' scale by benchmark; published ones are drawn dashed.

    `in_part` names the benchmarks of which not all questions count.
    """

    label: str
    values: Mapping[str, float]
    measured: bool = True
    in_part: frozenset[str] = frozenset()


def polygons(found: Sequence[Measured], protocol: str) -> list[Polygon]:
    """The models that have values by a protocol: measured ones, then published ones on the same axes."""
    by_system: dict[str, dict[str, float]] = {}
    in_part: dict[str, set[str]] = {}
    for each in found:
        number = each.numbers.get(each.benchmark)
        if each.protocol == protocol and each.benchmark in AXES and number and number.value is not None:
            by_system.setdefault(each.system, {})[each.benchmark] = number.value
            if set(each.marks) & set("LP"):
                in_part.setdefault(each.system, set()).add(each.benchmark)
    ours = [Polygon(name, values, True, frozenset(in_part.get(name, ()))) for name, values in by_system.items()]
    axes = {key for polygon in ours for key in polygon.values}
    rows = [row for block in published.following(protocol) for row in block.rows]
    sure = [row for row in rows if not any("R" in value.marks for value in row.values.values())]
    theirs = [Polygon(row.model, _published(row), False) for row in sure]
    return [*ours, *(polygon for polygon in theirs if len(axes & set(polygon.values)) >= FEWEST)]


def _published(row: published.Row) -> dict[str, float]:
    """A published row on the radar's axes; POPE is the mean of its categories, which are of one size."""
    values = {key: value.value for key, value in row.values.items() if key in AXES}
    parts = [value.value for key, value in row.values.items() if key.startswith("pope/")]
    return values | ({"pope": sum(parts) / 3} if len(parts) == 3 else {})


def axis_range(key: str, values: Sequence[float]) -> tuple[float, float]:
    """The ends of an axis: round numbers with all values inside, the lowest not at the centre."""
    step = 100.0 if key == "mme" else 5.0
    low, high = min(values), max(values)
    width = max(high - low, step)
    ends = math.floor((low - 0.35 * width) / step) * step, math.ceil((high + 0.05 * width) / step) * step
    return max(0.0, ends[0]), ends[1] if key == "mme" else min(100.0, ends[1])


def draw_radar(path: Path, found: Sequence[Measured], protocol: str) -> bool:
    """Writes the chart as PNG in one step; False when fewer than three benchmarks were measured by the protocol."""
    shown = polygons(found, protocol)
    keys = [key for key in AXES if any(polygon.measured and key in polygon.values for polygon in shown)]
    if len(keys) < FEWEST:
        return False
    write_bytes(path, _png(shown, keys, protocol))
    return True


def _png(shown: Sequence[Polygon], keys: Sequence[str], protocol: str) -> bytes:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    ranges = {key: axis_range(key, [p.values[key] for p in shown if key in p.values]) for key in keys}
    with rc_context({"font.family": "sans-serif", "text.usetex": False, "text.parse_math": False}):
        figure = Figure(figsize=(9.6, 9.4 + 0.32 * math.ceil(len(shown) / 3)), facecolor="white")
        axes = figure.add_axes((0.0, 0.07, 1.0, 0.9), aspect="equal")
        axes.set_axis_off()
        axes.set(xlim=(-1.62, 1.62), ylim=(-1.5, 1.45))
        _grid(axes, keys, ranges)
        colours = _colours(shown)
        for polygon, colour in zip(shown, colours, strict=True):
            _polygon(axes, polygon, keys, ranges, colour)
        _tips(axes, shown, keys, colours)
        _legend(axes, shown, colours, protocol)
        content = io.BytesIO()
        plain_texts(figure).savefig(content, format="png", dpi=130)
    return content.getvalue()


def _place(index: int, count: int, radius: float) -> tuple[float, float]:
    angle = math.pi / 2 - 2 * math.pi * index / count
    return radius * math.cos(angle), radius * math.sin(angle)


def _radius(value: float, ends: tuple[float, float]) -> float:
    return CENTRE + (1 - CENTRE) * (value - ends[0]) / (ends[1] - ends[0])


def _colours(shown: Sequence[Polygon]) -> list[str]:
    ours, theirs = 0, 0
    colours = []
    for polygon in shown:
        pool, place = (OURS, ours) if polygon.measured else (THEIRS, theirs)
        colours.append(pool[place % len(pool)])
        ours, theirs = ours + polygon.measured, theirs + (not polygon.measured)
    return colours


def _grid(axes: Axes, keys: Sequence[str], ranges: Mapping[str, tuple[float, float]]) -> None:
    count = len(keys)
    for step in range(5):
        radius = CENTRE + (1 - CENTRE) * step / 4
        ring = [_place(index, count, radius) for index in range(count + 1)]
        axes.plot(*zip(*ring, strict=True), color="#ddd7cb", linewidth=1.0 if step in (0, 4) else 0.6, zorder=1)
    for index, key in enumerate(keys):
        ends = ranges[key]
        axes.plot(
            *zip(_place(index, count, CENTRE), _place(index, count, 1), strict=True), color="#ddd7cb", linewidth=0.8
        )
        for share in (0, 1):
            x, y = _place(index, count, CENTRE + (1 - CENTRE) * share)
            value = ends[0] + share * (ends[1] - ends[0])
            box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.6}
            axes.text(x, y, f"{value:g}", fontsize=7, color="#8d867a", ha="center", va="center", bbox=box, zorder=6)


def _polygon(
    axes: Axes, polygon: Polygon, keys: Sequence[str], ranges: Mapping[str, tuple[float, float]], colour: str
) -> None:
    """The outline, broken where a value is missing; only a whole one of ours is filled."""
    places = []
    for index, key in enumerate(keys):
        there = key in polygon.values
        places.append(_place(index, len(keys), _radius(polygon.values[key], ranges[key]) if there else math.nan))
    closed = [*places, places[0]]
    style: dict[str, Any] = {"linestyle": "solid" if polygon.measured else (0, (4, 2))}
    style |= {"linewidth": 2.2 if polygon.measured else 1.5, "zorder": 5 if polygon.measured else 4}
    axes.plot(*zip(*closed, strict=True), color=colour, marker="o", markersize=4 if polygon.measured else 3, **style)
    if polygon.measured and all(key in polygon.values for key in keys):
        axes.fill(*zip(*places, strict=True), color=colour, alpha=0.08, zorder=2)


def _tips(axes: Axes, shown: Sequence[Polygon], keys: Sequence[str], colours: Sequence[str]) -> None:
    """The benchmark's name at each tip, and under it every model's value in its colour."""
    height = 0.062
    for index, key in enumerate(keys):
        x, y = _place(index, len(keys), 1.08)
        lines = [(COLUMNS[key], "#24211c", "bold", 11.0)]
        for polygon, colour in zip(shown, colours, strict=True):
            if key in polygon.values:
                weight = "bold" if polygon.measured else "normal"
                star = "*" if key in polygon.in_part else ""
                lines.append((f"{polygon.values[key]:.1f}{star}", colour, weight, 9.0))
        side = "center" if abs(x) < 0.12 else "left" if x > 0 else "right"
        # The block of lines lies outside of the polygon: above at the top, below at the bottom, centred at the sides.
        top = y + height * (len(lines) - 1) * (0.5 + 0.5 * y / 1.08)
        for number, (text, colour, weight, size) in enumerate(lines):
            axes.text(x, top - number * height, text, fontsize=size, color=colour, weight=weight, ha=side, va="center")


def _legend(axes: Axes, shown: Sequence[Polygon], colours: Sequence[str], protocol: str) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=colour, linewidth=2, linestyle="solid" if polygon.measured else (0, (4, 2)),
               label=_short(polygon.label) + ("" if polygon.measured else " (published)"))
        for polygon, colour in zip(shown, colours, strict=True)
    ]  # fmt: skip
    title = f"protocol {protocol}; each axis has its own range"
    title += "; * of a part of the questions" if any(polygon.in_part for polygon in shown) else ""
    axes.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.045), ncols=min(3, len(handles)), frameon=False,
        fontsize=10, title=title, title_fontsize=9,
    )  # fmt: skip


def _short(label: str, most: int = 38) -> str:
    """A label that fits; of a long path the end is what tells it from others."""
    label = " ".join(label.split())
    return label if len(label) <= most else f"…{label[-most + 1 :]}"
