"""What a sweep says beyond its table: the effect of each axis by itself, and quality against time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from vargpt_lightning.evaluation.analysis.run_plots import note_figure
from vargpt_lightning.evaluation.base.plot_texts import plain_texts
from vargpt_lightning.sweep.folder import Row
from vargpt_lightning.sweep.plots import HEIGHT, in_order, is_number, title_panel
from vargpt_lightning.sweep.spec import Measure
from vargpt_lightning.sweep.table import Cells, Stat, SweepTable, axis_title, stat, value_text
from vargpt_lightning.utils.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SECONDS = "seconds"


@dataclass(frozen=True)
class Effect:
    """The mean of a measure at each value of an axis, over the same other settings; `over` is how many of these."""

    axis: str
    measure: str
    stats: dict[Any, Stat]
    over: int

    @property
    def range(self) -> float:
        """How far apart the best and the worst mean are."""
        means = [found.mean for found in self.stats.values()]
        return max(means) - min(means)


def main_effect(rows: Sequence[Row], axis: str, measure: str) -> Effect | None:
    """The effect of an axis on a measure, averaged over the other axes; None where nothing can be compared.

    Only settings of the other axes count, with a seed, for which every value of this axis has finished that has
    finished anywhere: so each value is averaged over the same settings, also while a sweep runs. The interval is over
    the seeds.
    """
    found: dict[Any, dict[tuple[str, int], float]] = {}
    for row in rows:
        if measure in row.measures:
            others = repr(sorted((key, value) for key, value in row.values.items() if key != axis))
            found.setdefault(row.values.get(axis), {})[others, row.seed] = row.measures[measure]
    if len(found) < 2:
        return None
    common = set.intersection(*(set(settings) for settings in found.values()))
    if not common:
        return None
    stats = {}
    for value in in_order(found):
        by_seed: dict[int, list[float]] = {}
        for others, seed in sorted(common):
            by_seed.setdefault(seed, []).append(found[value][others, seed])
        stats[value] = stat([fmean(numbers) for numbers in by_seed.values()])
    return Effect(axis, measure, stats, len({others for others, _ in common}))


def main_effects(table: SweepTable) -> list[Effect]:
    """The effects of all axes on all measures, where there are any."""
    pairs = ((axis, measure) for measure in table.sweep.measures for axis in table.axes)
    effects = (main_effect(table.rows, axis, measure.name) for axis, measure in pairs)
    return [effect for effect in effects if effect is not None]


def effects_figure(table: SweepTable, most: int = 4) -> Figure:
    """The main effects: a row of panels for each of the first measures, a panel for each axis, one scale a row."""
    from matplotlib.figure import Figure

    effects = {(effect.measure, effect.axis): effect for effect in main_effects(table)}
    measures = [m for m in table.sweep.measures if any(m.name == measure for measure, _ in effects)][:most]
    axes = [axis for axis in table.axes if any(axis == other for _, other in effects)]
    if not measures:
        return note_figure("no two values of an axis have finished with the same other settings yet")
    figure = Figure(figsize=(3.2 * len(axes), 0.8 * HEIGHT * len(measures)), layout="constrained", dpi=110)
    panels = figure.subplots(len(measures), len(axes), squeeze=False, sharey="row")
    for line, measure in zip(panels, measures, strict=True):
        for panel, axis in zip(line, axes, strict=True):
            if effect := effects.get((measure.name, axis)):
                places = list(effect.stats) if all(map(is_number, effect.stats)) else range(len(effect.stats))
                means = [found.mean for found in effect.stats.values()]
                halves = [found.half or 0.0 for found in effect.stats.values()]
                panel.errorbar(places, means, yerr=halves, marker="o", capsize=3, color="#3a6db3")
                panel.set_xticks(list(places), [value_text(value) for value in effect.stats])
                panel.margins(x=0.15)
            panel.set_xlabel(axis_title(axis))
            panel.grid(True, axis="y", alpha=0.3)
        title_panel(line[0], measure)
    return plain_texts(figure)


def pareto(groups: Sequence[Cells], quality: Measure, cost: Measure | None = None) -> list[tuple[Cells, float, float]]:
    """The groups that no other beats in both, as (group, quality, cost), the cheapest first.

    Args:
        cost: a measure that is better the lower it is; None takes the seconds that the trials took.
    """
    points = [
        (group, group.stats[quality.name].mean, cost_of(group, cost)) for group in groups if quality.name in group.stats
    ]
    sign = 1 if quality.best == "max" else -1
    front: list[tuple[Cells, float, float]] = []
    for point in sorted(points, key=lambda point: (point[2], -sign * point[1])):
        if not front or sign * point[1] > sign * front[-1][1]:
            front.append(point)
    return front


def cost_of(group: Cells, cost: Measure | None) -> float:
    """The mean of a measure, or of the seconds that the finished trials of a group took."""
    if cost is not None:
        return group.stats[cost.name].mean
    return fmean(row.seconds for row in group.rows if row.state == "finished")


def pareto_figure(table: SweepTable, quality: str | None = None, cost: str | None = None) -> Figure:
    """Quality against time, a point a group; those that no other beats in both are joined and named.

    Args:
        quality: a measure's name; None takes the sweep's first.
        cost: a measure's name; None takes one whose name begins with `seconds`, else the seconds of the trials.

    Raises:
        UserError: there is no such measure.
    """
    from matplotlib.figure import Figure

    measures = {measure.name: measure for measure in table.sweep.measures}
    for name in (quality, cost):
        if name is not None and name not in measures:
            raise UserError(f"measure {name!r}; expected one of {', '.join(measures)}")
    aim = measures[quality] if quality else table.sweep.measures[0]
    timed = next((name for name in measures if name.startswith(SECONDS)), None) if cost is None else cost
    price = measures[timed] if timed else None
    groups = [
        group for group in table.groups if aim.name in group.stats and (price is None or price.name in group.stats)
    ]
    if not groups:
        return note_figure("no trial has finished yet")
    front = pareto(groups, aim, price)
    figure = Figure(figsize=(7.0, 4.2), layout="constrained", dpi=110)
    panel = figure.subplots()
    for group in groups:
        found = group.stats[aim.name]
        panel.errorbar(cost_of(group, price), found.mean, yerr=found.half or 0.0, fmt="o", capsize=2, color="#9aa5b1")
    panel.plot([x for _, _, x in front], [y for _, y, _ in front], marker="o", color="#d2762a", zorder=3)
    box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1}
    for group, y, x in front:
        name = ", ".join(f"{axis_title(axis)} {value_text(group.values.get(axis))}" for axis in table.axes)
        panel.annotate(name, (x, y), xytext=(6, 6), textcoords="offset points", fontsize=8, bbox=box)
    panel.margins(x=0.2)
    panel.set_xlabel(f"{price.name if price else 'seconds of a trial'} (less is better)")
    title_panel(panel, aim)
    panel.grid(True, alpha=0.3)
    return plain_texts(figure)
