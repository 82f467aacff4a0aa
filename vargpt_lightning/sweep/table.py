"""A sweep's trials as a table: mean and 95 % interval over the seeds, the best marked; as text, CSV, LaTeX."""

from __future__ import annotations

import contextlib
import csv
import io
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from rich.console import Group as Lines
from rich.markup import escape
from rich.table import Table

from vargpt_lightning.sweep.folder import Row
from vargpt_lightning.sweep.spec import Measure, Sweep

# The 97.5 % quantile of Student's t by degrees of freedom; beyond the last the normal distribution's is near enough.
T_975 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131),
    *(2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
FORMULA_SIGNS = (*"=+-@＝＋－＠",)
COLOURS = {
    **{"finished": "green", "running": "cyan", "interrupted": "yellow", "failed": "red", "pruned": "magenta"},
    "waiting": "dim",
}


@dataclass(frozen=True)
class Stat:
    """A mean over `n` seeds; `half` is half of its 95 % interval by Student's t, None for a single seed."""

    mean: float
    half: float | None
    n: int


@dataclass(frozen=True)
class Cells:
    """The trials that differ in nothing but the seed, with their figures."""

    values: dict[str, Any]
    changes: dict[str, Any]
    rows: tuple[Row, ...]
    stats: dict[str, Stat]

    @property
    def seeds(self) -> set[int]:
        """The seeds of the trials that have finished."""
        return {row.seed for row in self.rows if row.state == "finished"}

    @property
    def states(self) -> Counter[str]:
        """How many trials are in which state."""
        return Counter(row.state for row in self.rows)


def summarize(rows: Sequence[Row], measures: Sequence[Measure]) -> list[Cells]:
    """Return the trials in groups of equal values, in the order of the rows."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(repr(row.values) if row.values else row.key, []).append(row)
    found = []
    for members in groups.values():
        # a sampler may choose the same point again: the same seed is the same experiment, and counts once
        values = {m.name: {r.seed: r.measures[m.name] for r in members if m.name in r.measures} for m in measures}
        stats = {name: stat([*numbers.values()]) for name, numbers in values.items() if numbers}
        found.append(Cells(members[0].values, members[0].changes, tuple(members), stats))
    return found


def stat(values: Sequence[float]) -> Stat:
    """Return mean and half width of the 95 % interval of some seeds' values."""
    n = len(values)
    if n < 2:
        return Stat(fmean(values), None, n)
    quantile = T_975[n - 2] if n - 2 < len(T_975) else 1.96
    return Stat(fmean(values), quantile * stdev(values) / math.sqrt(n), n)


def best_of(groups: Sequence[Cells], measure: Measure) -> list[int]:
    """Return the places of the groups with the best mean; none where there is nothing to compare."""
    means = {place: group.stats[measure.name].mean for place, group in enumerate(groups) if measure.name in group.stats}
    if len(means) < 2:
        return []
    best = (max if measure.best == "max" else min)(means.values())
    found = [place for place, mean in means.items() if mean == best]
    return found if len(found) < len(means) else []


def by_aim(groups: Sequence[Cells], aim: Measure) -> list[Cells]:
    """Return the groups with the best aim first; those without one last."""
    sign = -1 if aim.best == "max" else 1
    return sorted(groups, key=lambda group: sign * group.stats[aim.name].mean if aim.name in group.stats else math.inf)


class SweepTable:
    """The table of a sweep's rows.

    Args:
        top: show only so many groups, the best ones by the first measure; None shows all, in the plan's order.
    """

    def __init__(self, sweep: Sweep, rows: Sequence[Row], top: int | None = None) -> None:
        self.sweep, self.rows = sweep, list(rows)
        groups = summarize(rows, sweep.measures)
        self.hidden = max(0, len(groups) - top) if top is not None else 0
        self.groups = by_aim(groups, sweep.measures[0])[:top] if top is not None or sweep.sampled else groups
        keys = list(dict.fromkeys(key for group in groups for key in group.values))
        varies = [key for key in keys if len({repr(group.values.get(key)) for group in groups}) > 1]
        self.axes = varies or keys
        self.best = {measure.name: best_of(self.groups, measure) for measure in sweep.measures}

    @property
    def progress(self) -> str:
        """How many trials are in which state."""
        counts = Counter(row.state for row in self.rows)
        return ", ".join(f"{counts[state]} {state}" for state in COLOURS if counts[state]) or "no trials"

    def rich(self) -> Lines:
        """The table for a terminal, with the counts above and the errors below."""
        table = Table(box=None, pad_edge=False)
        several = any(len({row.seed for row in group.rows}) > 1 for group in self.groups)
        changes = "variant" in self.axes
        heads = [axis_title(axis) for axis in self.axes] + ["differs from the base"] * changes
        for head in heads:
            table.add_column(head, overflow="fold")
        for measure in self.sweep.measures:
            table.add_column(f"{measure.name} {'↑' if measure.best == 'max' else '↓'}", justify="right", no_wrap=True)
        if several:
            table.add_column("seeds", justify="right")
        table.add_column("state")
        for place, group in enumerate(self.groups):
            cells = [escape(value_text(group.values.get(axis))) for axis in self.axes]
            cells += [escape(changes_text(group.changes))] * changes
            cells += [self._figure(place, measure) for measure in self.sweep.measures]
            cells += [str(len(group.seeds))] * several
            table.add_row(*cells, _states(group))
        title = f"[bold]{escape(self.sweep.name)}[/]: {self.progress}"
        common = changes_text(self.sweep.overrides)
        below = [f"all cells: {escape(common)}"] if common else []
        below += [f"and {self.hidden} more"] if self.hidden else []
        below += ["* best mean; ± half of the 95 % interval over the seeds (Student's t)"] if several else ["* best"]
        return Lines(title, table, *below, *self._errors())

    def _figure(self, place: int, measure: Measure) -> str:
        found = self.groups[place].stats.get(measure.name)
        if found is None:
            return "–  " if self.groups[place].states["finished"] else ""
        text = figure(found)
        return f"[bold]{text} *[/]" if place in self.best[measure.name] else f"{text}  "

    def _errors(self) -> list[str]:
        failed = [row for row in self.rows if row.error and row.state == "failed"]
        incomplete = Counter(row.error for row in self.rows if row.error and row.state == "finished")
        lines = [f"[{COLOURS[row.state]}]{row.state}[/] {escape(row.name)}: {escape(row.error)}" for row in failed]
        return lines + [f"– in {count} finished: {escape(error)}" for error, count in incomplete.items()]

    def csv(self) -> str:
        """One line for each group: values, changes, and of each measure mean, low, high and seeds."""
        out = io.StringIO(newline="")
        writer = csv.writer(out, lineterminator="\n")
        rows: list[list[Any]] = []
        figures = [f"{m.name}{end}" for m in self.sweep.measures for end in ("", "_low", "_high", "_n", "_best")]
        rows.append([*self.axes, "changes", *figures, "states"])
        for place, group in enumerate(self.groups):
            cells: list[Any] = [group.values.get(axis) for axis in self.axes]
            cells.append(changes_text(group.changes))
            for measure in self.sweep.measures:
                found = group.stats.get(measure.name)
                if found is None:
                    cells += ["", "", "", 0, ""]
                    continue
                ends = ("", "") if found.half is None else (found.mean - found.half, found.mean + found.half)
                cells += [found.mean, *ends, found.n, int(place in self.best[measure.name])]
            rows.append([*cells, " ".join(f"{state}:{count}" for state, count in group.states.items())])
        writer.writerows([csv_cell(value) for value in row] for row in rows)
        return out.getvalue()

    def latex(self) -> str:
        """A `tabular` with booktabs' rules, the best in bold."""
        heads = [latex_text(axis_title(axis)) for axis in self.axes]
        arrows = {"max": r"$\uparrow$", "min": r"$\downarrow$"}
        heads += [f"{latex_text(measure.name)} {arrows[measure.best]}" for measure in self.sweep.measures]
        lines = [rf"\begin{{tabular}}{{{'l' * len(self.axes)}{'r' * len(self.sweep.measures)}}}", r"\toprule"]
        lines += [rf"{' & '.join(heads)} \\", r"\midrule"]
        for place, group in enumerate(self.groups):
            cells = [latex_text(value_text(group.values.get(axis))) for axis in self.axes]
            for measure in self.sweep.measures:
                found = group.stats.get(measure.name)
                text = "--" if found is None else figure(found).replace("±", r"\pm")
                text = text if found is None else f"${text}$"
                cells.append(rf"\boldmath{text}" if place in self.best[measure.name] else text)
            lines.append(rf"{' & '.join(cells)} \\")
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])

    def markdown(self) -> str:
        """The table for a page of documentation."""
        heads = [axis_title(axis) for axis in self.axes] + [measure.name for measure in self.sweep.measures]
        lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(self.axes)}{'--:|' * len(self.sweep.measures)}"]
        for place, group in enumerate(self.groups):
            cells = [value_text(group.values.get(axis)).replace("|", "\\|") for axis in self.axes]
            for measure in self.sweep.measures:
                text = figure(group.stats[measure.name]) if measure.name in group.stats else ""
                cells.append(f"**{text}**" if place in self.best[measure.name] else text)
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join([*lines, ""])


def figure(found: Stat) -> str:
    """Return a mean with its interval, at four digits."""
    digits = 4 if abs(found.mean) < 1 else max(0, 4 - len(str(int(abs(found.mean)))))
    text = f"{found.mean:.{digits}f}"
    return text if found.half is None else f"{text} ± {found.half:.{digits}f}"


def csv_cell(value: Any) -> Any:
    """Return a value so that no spreadsheet takes it for a formula: a text that begins like one gets an apostrophe."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    text = " ".join(str(value).splitlines())  # csv leaves a lone carriage return unquoted
    if text.lstrip()[:1] not in FORMULA_SIGNS or not text.strip():
        return text
    with contextlib.suppress(ValueError):
        float(text)
        return text
    return f"'{text}"


def axis_title(axis: str) -> str:
    """Return the last name of a dotted key; of a stage's key the stage as well."""
    names = axis.split(".")
    return ".".join(names[1:]) if names[0] == "stages" else names[-1]


def value_text(value: Any) -> str:
    """Return a value as a table shows it."""
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def changes_text(changes: dict[str, Any] | Any) -> str:
    """Return changes as `key=value, ...`; a stage that is left out as `without NAME`."""
    parts = []
    for key, value in changes.items():
        names = key.split(".")
        left_out = names[0] == "stages" and len(names) == 2 and value is None
        parts.append(
            f"without {names[1]}" if left_out else f"{key}={value_text(value) if value is not None else 'null'}"
        )
    return ", ".join(parts)


def latex_text(text: str) -> str:
    """Return a text with LaTeX's own signs escaped."""
    for sign in ("\\", "&", "%", "$", "#", "_", "{", "}"):
        text = text.replace(sign, r"\textbackslash " if sign == "\\" else f"\\{sign}")
    return text


def _states(group: Cells) -> str:
    if len(group.rows) == 1:
        (state,) = group.states
        return f"[{COLOURS[state]}]{state}[/]"
    return ", ".join(f"[{COLOURS[state]}]{group.states[state]} {state}[/]" for state in COLOURS if group.states[state])
