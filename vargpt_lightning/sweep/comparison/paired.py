"""A sweep's cells beside one of them: what each changes, by the same items of the same seeds where a run keeps them.

A measure of single drawings is compared drawing by drawing (see `item_scores`), any other one seed by seed.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vargpt_lightning.evaluation.base.paired_tests import paired
from vargpt_lightning.sweep.spec import Measure
from vargpt_lightning.sweep.table import Cells, SweepTable, axis_title, csv_cell, stat, value_text
from vargpt_lightning.utils.errors import UserError, hint
from vargpt_lightning.utils.files import read_jsonl

VERDICTS, RANKS = "evaluation/scene_verdicts.jsonl", "evaluation/drawing_scores.jsonl"
Scores = Mapping[tuple[int, str], float]
"""Scores of single drawings, by seed and id."""


@dataclass(frozen=True)
class Change:
    """What a cell has more of a measure than the reference; `low` and `high` are None where one seed says nothing."""

    difference: float
    low: float | None
    high: float | None
    n: int
    of: str

    @property
    def sure(self) -> bool:
        """Whether the 95 % interval leaves zero out."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


class PairedTable:
    """Means of a sweep's cells, with their differences to one of them.

    Args:
        table: the sweep's.
        reference: a value of the cells, such as the name of a variant.
        runs: where the trials' run folders are.

    Raises:
        UserError: no cell, or more than one, has this value.
    """

    def __init__(self, table: SweepTable, reference: str, runs: Path) -> None:
        self.table, self.measures = table, table.sweep.measures
        self.names = [" ".join(value_text(group.values.get(axis)) for axis in table.axes) for group in table.groups]
        if reference not in self.names:
            raise UserError(f"--against {reference}: no such cell; {hint(reference, self.names)}")
        self.place = self.names.index(reference)
        own = [{measure.name: item_scores(group, measure, runs) for measure in self.measures} for group in table.groups]
        base, scores = table.groups[self.place], own[self.place]
        self.changes: list[dict[str, Change]] = [
            {
                measure.name: found
                for measure in self.measures
                if place != self.place
                and (found := changed(measure, base, group, scores[measure.name], own[place][measure.name]))
            }
            for place, group in enumerate(table.groups)
        ]

    def show(self) -> None:
        """Print the table."""
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        shown = Table(box=None, pad_edge=False, title=f"beside {escape(self.names[self.place])}", title_justify="left")
        shown.add_column(", ".join(axis_title(axis) for axis in self.table.axes), overflow="fold")
        for measure in self.measures:
            shown.add_column(measure.name, justify="right", no_wrap=True)
        for place, name in enumerate(self.names):
            shown.add_row(escape(name), *(self._text(place, measure) for measure in self.measures))
        console = Console()
        (console if console.is_terminal else Console(width=240)).print(shown)

    def markdown(self) -> str:
        """The table for a page of documentation; a difference whose interval leaves zero out is bold."""
        lines = [f"| {' | '.join(['', *(measure.name for measure in self.measures)])} |"]
        lines.append(f"|---|{'--:|' * len(self.measures)}")
        for place, name in enumerate(self.names):
            lines.append(f"| {name} | {' | '.join(self._text(place, measure, '**') for measure in self.measures)} |")
        return "\n".join([*lines, ""])

    def csv(self) -> str:
        """One line for each cell: of each measure its mean, the difference, its interval, and by what it is paired."""
        out = io.StringIO(newline="")
        writer = csv.writer(out, lineterminator="\n")
        ends = ("", "_difference", "_low", "_high", "_n", "_paired_by")
        writer.writerow(["cell", *(f"{measure.name}{end}" for measure in self.measures for end in ends)])
        for place, name in enumerate(self.names):
            cells: list[object] = [name]
            for measure in self.measures:
                mean = self.table.groups[place].stats.get(measure.name)
                found = self.changes[place].get(measure.name)
                cells.append(None if mean is None else mean.mean)
                cells += [None] * 5 if found is None else [found.difference, found.low, found.high, found.n, found.of]
            writer.writerow([csv_cell(value) for value in cells])
        return out.getvalue()

    def _text(self, place: int, measure: Measure, mark: str = "") -> str:
        mean = self.table.groups[place].stats.get(measure.name)
        if mean is None:
            return "–"
        found = self.changes[place].get(measure.name)
        if found is None:
            return _number(mean.mean)
        inside = "" if found.low is None or found.high is None else f" ({_signed(found.low)} to {_signed(found.high)})"
        difference = f"{_signed(found.difference)}{inside}"
        return f"{_number(mean.mean)}, {mark + difference + mark if found.sure else difference}"


def changed(measure: Measure, base: Cells, other: Cells, first: Scores, second: Scores) -> Change | None:
    """Return what a cell has more of a measure than the reference, None where they share nothing.

    Drawings of one id, under all seeds, are one group of the bootstrap.
    """
    if both := sorted(first.keys() & second.keys()):
        found = paired([first[key] for key in both], [second[key] for key in both], [id_ for _, id_ in both])
        return Change(found.difference, found.low, found.high, found.n, "drawing")
    seeds = [_by_seed(cells, measure) for cells in (base, other)]
    shared = sorted(seeds[0].keys() & seeds[1].keys())
    if not shared:
        return None
    told = stat([seeds[1][seed] - seeds[0][seed] for seed in shared])
    low, high = (None, None) if told.half is None else (told.mean - told.half, told.mean + told.half)
    return Change(told.mean, low, high, told.n, "seed")


def item_scores(cells: Cells, measure: Measure, runs: Path) -> Scores:
    """Return what single drawings of a cell's runs score by a measure; empty for a measure of none.

    composition.SPLIT.all.rate               the judge of scenes: right or not
    identification_1, identification_5       whether the picture asked for is the nearest, or among the nearest five
    """
    first, _, rest = measure.path.partition(".")
    split, _, figure = rest.partition(".")
    found: dict[tuple[int, str], float] = {}
    for row in cells.rows:
        run = runs / row.name
        if first == "composition" and figure == "all.rate":
            rows = (each for each in read_jsonl(run / VERDICTS) if each["split"] == split)
            found |= {(row.seed, str(each["id"])): float(each["right"]) for each in rows}
        elif measure.path in ("identification_1", "identification_5"):
            best = int(measure.path.rpartition("_")[2])
            found |= {(row.seed, str(each["id"])): float(each["rank"] < best) for each in read_jsonl(run / RANKS)}
    return found


def _by_seed(cells: Cells, measure: Measure) -> dict[int, float]:
    return {row.seed: row.measures[measure.name] for row in cells.rows if measure.name in row.measures}


def _number(value: float) -> str:
    return f"{value:.3g}"


def _signed(value: float) -> str:
    return f"{value:+.2g}".replace("-", "−")


def pareto(points: Sequence[tuple[float, float]], x_best: str = "min", y_best: str = "max") -> list[int]:
    """Return the places of points that no other one beats in both: in the order of x."""
    sx, sy = (1 if x_best == "min" else -1), (1 if y_best == "min" else -1)
    order = sorted(range(len(points)), key=lambda place: (sx * points[place][0], sy * points[place][1]))
    found: list[int] = []
    for place in order:
        if not found or sy * points[place][1] < sy * points[found[-1]][1]:
            found.append(place)
    return found
