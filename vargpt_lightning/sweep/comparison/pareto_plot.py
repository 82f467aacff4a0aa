"""Two measures of a sweep against each other: what cells cost and what they bring, and those that none beats."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from vargpt_lightning.evaluation.base.plot_texts import plain_texts
from vargpt_lightning.sweep.comparison.paired import pareto
from vargpt_lightning.sweep.spec import Measure
from vargpt_lightning.sweep.table import SweepTable, value_text
from vargpt_lightning.utils.errors import UserError, hint
from vargpt_lightning.utils.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COSTS = ("seconds", "memory")


def plot_pareto(table: SweepTable, file: Path, axes: str = "", reference: str = "") -> None:
    """Write the plot; its kind of file is told by its name.

    Args:
        table: the sweep's.
        file: .png, .pdf or .svg.
        axes: the names of two measures, COST,GAIN; by default the first that names seconds, and the first of all.
        reference: the cell to mark.

    Raises:
        UserError: no such measure, no cell has both, or matplotlib cannot write such a file.
    """
    content, figure_ = io.BytesIO(), pareto_figure(table, *measures_of(table, axes), reference)
    try:
        figure_.savefig(content, format=file.suffix.lstrip(".") or "png")
    except ValueError as error:
        raise UserError(f"{file}: {error}") from error
    write_bytes(file, content.getvalue())


def measures_of(table: SweepTable, axes: str) -> tuple[Measure, Measure]:
    """Return the measures of both axes.

    Raises:
        UserError: there is none of a name, or none that names seconds.
    """
    known = {measure.name: measure for measure in table.sweep.measures}
    if axes:
        names = axes.split(",")
        if len(names) != 2:
            raise UserError(f"--axes {axes}: expected two measures, COST,GAIN")
        for name in names:
            if name not in known:
                raise UserError(f"--axes {axes}: no measure {name!r}; {hint(name, known)}")
        return known[names[0]], known[names[1]]
    cost = next((measure for measure in known.values() if any(word in measure.path for word in COSTS)), None)
    if cost is None:
        raise UserError(f"--pareto: no measure of {' or '.join(COSTS)}; expected --axes COST,GAIN")
    return cost, next(measure for measure in known.values() if measure is not cost)


def pareto_figure(table: SweepTable, cost: Measure, gain: Measure, reference: str = "") -> Figure:
    """Return the figure: a point for each cell with its interval, and a line along those that no other one beats.

    Raises:
        UserError: no cell has both measures.
    """
    from matplotlib.figure import Figure

    groups = [group for group in table.groups if {cost.name, gain.name} <= group.stats.keys()]
    if not groups:
        raise UserError(f"{table.sweep.name}: no cell has both {cost.name} and {gain.name}; there is nothing to plot")
    names = [" ".join(value_text(group.values.get(axis)) for axis in table.axes) for group in groups]
    points = [(group.stats[cost.name].mean, group.stats[gain.name].mean) for group in groups]
    front = pareto(points, cost.best, gain.best)
    figure_ = Figure(layout="constrained", dpi=130, figsize=(8.0, 5.2))
    panel = figure_.subplots()
    for place, (group, (x, y)) in enumerate(zip(groups, points, strict=True)):
        marked = names[place] == reference
        colour = "#b0472c" if marked else "#2c7a57" if place in front else "#736d62"
        panel.errorbar(x, y, yerr=group.stats[gain.name].half or 0, fmt="s" if marked else "o", color=colour,
                       ecolor="#d5cfc3", elinewidth=1, markersize=6, zorder=3)  # fmt: skip
        panel.annotate(names[place], (x, y), xytext=(6, 4), textcoords="offset points", fontsize=8, color=colour)
    panel.plot([points[place][0] for place in front], [points[place][1] for place in front], color="#2c7a57", lw=1)
    panel.set_xlabel(f"{cost.name} ({'less' if cost.best == 'min' else 'more'} is better)")
    panel.set_ylabel(f"{gain.name} ({'less' if gain.best == 'min' else 'more'} is better)")
    panel.set_title(f"{table.sweep.name}: the line joins cells that no other one beats in both", fontsize=10)
    panel.margins(x=0.12, y=0.1)
    return plain_texts(figure_)
