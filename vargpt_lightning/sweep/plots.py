"""A sweep's table as a picture: one axis of numbers is a line, two are a heat map, names are bars."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vargpt_lightning.evaluation.base.plot_texts import plain_texts
from vargpt_lightning.sweep.spec import Measure
from vargpt_lightning.sweep.table import Cells, SweepTable, axis_title, figure, value_text
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = 4
HEIGHT = 3.4


def plot(table: SweepTable, file: Path) -> None:
    """Write the plot; its kind of file is told by its name.

    Raises:
        UserError: no trial has finished yet, or matplotlib cannot write such a file.
    """
    content, figure_ = io.BytesIO(), table_figure(table)
    try:
        figure_.savefig(content, format=file.suffix.lstrip(".") or "png")
    except ValueError as error:
        raise UserError(f"{file}: {error}") from error
    write_bytes(file, content.getvalue())


def table_figure(table: SweepTable) -> Figure:
    """Return the table as a figure.

    Raises:
        UserError: no trial has finished yet.
    """
    from matplotlib.figure import Figure

    groups = [group for group in table.groups if group.stats]
    if not groups:
        raise UserError(f"{table.sweep.name}: no trial has finished yet; there is nothing to plot")
    axes = sorted(table.axes, key=lambda axis: -len(_values(groups, axis)))
    numbers = [axis for axis in axes if all(is_number(value) for value in _values(groups, axis))]
    measures = list(islice((m for m in table.sweep.measures if any(m.name in g.stats for g in groups)), PANELS))
    figure_ = Figure(layout="constrained", dpi=130)
    if len(numbers) >= 2 and len(numbers) == len(axes) and not table.sweep.sampled:
        _heat_maps(figure_, groups, axes, measures)
    elif len(numbers) == 1 and len(axes) <= 2 and len(_values(groups, numbers[0])) > 1:
        _lines(figure_, groups, numbers[0], [axis for axis in axes if axis != numbers[0]], measures)
    elif table.sweep.sampled:
        _scatter(figure_, groups, axes[:PANELS], measures[0])
    else:
        _bars(figure_, groups, table.axes, measures)
    figure_.suptitle(table.sweep.name)
    return plain_texts(figure_)


def _values(groups: Sequence[Cells], axis: str) -> list[Any]:
    return in_order({repr(group.values.get(axis)): group.values.get(axis) for group in groups}.values())


def in_order(values: Iterable[Any]) -> list[Any]:
    """The values of an axis: numbers by their size, names as they come."""
    found = list(values)
    return sorted(found) if all(is_number(value) for value in found) else found


def is_number(value: Any) -> bool:
    """Whether a value of an axis has a place on a scale."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _lines(figure_: Any, groups: Sequence[Cells], axis: str, other: list[str], measures: Sequence[Measure]) -> None:
    figure_.set_size_inches(4.2 * len(measures), HEIGHT)
    for panel, measure in zip(figure_.subplots(1, len(measures), squeeze=False)[0], measures, strict=True):
        for value in _values(groups, other[0]) if other else [None]:
            line = [g for g in groups if measure.name in g.stats and (not other or g.values.get(other[0]) == value)]
            line.sort(key=lambda group: group.values[axis])
            x = [group.values[axis] for group in line]
            y = [group.stats[measure.name].mean for group in line]
            half = [group.stats[measure.name].half or 0.0 for group in line]
            label = f"{axis_title(other[0])} {value_text(value)}" if other else None
            panel.errorbar(x, y, yerr=half, marker="o", capsize=3, label=label)
        panel.set_xlabel(axis)
        title_panel(panel, measure)
        if other:
            panel.legend()


def _heat_maps(figure_: Any, groups: Sequence[Cells], axes: list[str], measures: Sequence[Measure]) -> None:
    """One map for each measure (below one another) and each value of the third axis (side by side)."""
    (x_axis, y_axis), rest = axes[:2], axes[2:]
    others = list({repr([g.values.get(a) for a in rest]): [g.values.get(a) for a in rest] for g in groups}.values())
    others.sort()
    xs, ys = _values(groups, x_axis), _values(groups, y_axis)
    width, height = max(2.6, 0.75 * len(xs) + 1.2), max(2.0, 0.5 * len(ys) + 1.4)
    figure_.set_size_inches(width * len(others) + 0.6, height * len(measures) + 0.4)
    panels = figure_.subplots(len(measures), len(others), squeeze=False)
    for row, measure in zip(panels, measures, strict=True):
        means = [group.stats[measure.name].mean for group in groups if measure.name in group.stats]
        low, high = min(means), max(means)
        for panel, other in zip(row, others, strict=True):
            members = [group for group in groups if [group.values.get(axis) for axis in rest] == other]
            table = [[_mean(members, {x_axis: x, y_axis: y}, measure) for x in xs] for y in ys]
            colours = "viridis" if measure.best == "max" else "viridis_r"
            panel.imshow(table, cmap=colours, vmin=low, vmax=high, aspect="auto", origin="lower")
            for at_y, line in enumerate(table):
                for at_x, mean in enumerate(line):
                    bright = high > low and ((mean - low) / (high - low) > 0.6) == (measure.best == "max")
                    text = f"{mean:.3g}" if mean == mean else ""
                    panel.text(at_x, at_y, text, ha="center", va="center", color="black" if bright else "white")
            panel.set_xticks(range(len(xs)), [value_text(x) for x in xs])
            panel.set_yticks(range(len(ys)), [value_text(y) for y in ys])
            panel.set_xlabel(axis_title(x_axis))
            panel.set_ylabel(axis_title(y_axis))
            named = ", ".join(f"{axis_title(a)} {value_text(v)}" for a, v in zip(rest, other, strict=True))
            title_panel(panel, measure, named)


def _mean(groups: Sequence[Cells], wanted: dict[str, Any], measure: Measure) -> float:
    for group in groups:
        if measure.name in group.stats and all(group.values.get(key) == value for key, value in wanted.items()):
            return group.stats[measure.name].mean
    return float("nan")


def _bars(figure_: Any, groups: Sequence[Cells], axes: Sequence[str], measures: Sequence[Measure]) -> None:
    figure_.set_size_inches(3.4 * len(measures) + 1.5, max(2.0, 0.32 * len(groups) + 1.2))
    panels = figure_.subplots(1, len(measures), squeeze=False, sharey=True)[0]
    names = [", ".join(value_text(group.values.get(axis)) for axis in axes) for group in groups]
    for panel, measure in zip(panels, measures, strict=True):
        for place, group in enumerate(groups):
            if found := group.stats.get(measure.name):
                panel.barh(place, found.mean, xerr=found.half, capsize=3, color="#4878a8")
                panel.text(0, place, f" {figure(found)}", va="center", color="white", fontsize=8)
        panel.set_yticks(range(len(groups)), names)
        panel.invert_yaxis()
        title_panel(panel, measure)


def _scatter(figure_: Any, groups: Sequence[Cells], axes: Sequence[str], measure: Measure) -> None:
    figure_.set_size_inches(4.0 * len(axes), HEIGHT)
    for panel, axis in zip(figure_.subplots(1, len(axes), squeeze=False)[0], axes, strict=True):
        known = [group for group in groups if measure.name in group.stats]
        x = [group.values.get(axis) for group in known]
        panel.scatter(x if all(map(is_number, x)) else [str(value) for value in x],
                      [group.stats[measure.name].mean for group in known])  # fmt: skip
        panel.set_xlabel(axis)
        title_panel(panel, measure)


def title_panel(panel: Any, measure: Measure, more: str = "") -> None:
    """Names a measure above its panel, and which way is better."""
    arrow = "higher is better" if measure.best == "max" else "lower is better"
    panel.set_title(f"{measure.name} ({arrow}){chr(10) + more if more else ''}", fontsize=9)
