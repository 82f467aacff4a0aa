"""Main effects compare like with like; the Pareto front is what no other beats in both."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from tests.sweep.test_table import KID, SCORE, sweep
from vargpt_lightning.sweep.effects import effects_figure, main_effect, main_effects, pareto, pareto_figure
from vargpt_lightning.sweep.folder import Row
from vargpt_lightning.sweep.table import SweepTable
from vargpt_lightning.utils.errors import UserError


def row(number: int, values: dict[str, Any], score: float | None, seed: int = 0, seconds: float = 1.0) -> Row:
    measures = {} if score is None else {"score": score, "kid_1": 1.0}
    state = "waiting" if score is None else "finished"
    return Row(number, f"k{number}", f"n{number}", values, seed, {}, state, measures, "", "", seconds)


def grid(missing: tuple[int, ...] = ()) -> list[Row]:
    """score = 10 a + b + seed / 10 of a and b in 1, 2 and seeds 0, 1."""
    cells = enumerate(product((1, 2), (1, 2), (0, 1)))
    return [
        row(n, {"a": a, "b": b}, None if n in missing else 10 * a + b + seed / 10, seed) for n, (a, b, seed) in cells
    ]


def test_an_effect_is_averaged_over_the_other_axes_with_an_interval_over_the_seeds() -> None:
    effect = main_effect(grid(), "a", "score")
    assert effect is not None and list(effect.stats) == [1, 2] and effect.over == 2
    assert effect.stats[1].mean == pytest.approx(11.55) and effect.range == pytest.approx(10.0)
    assert effect.stats[1].n == 2 and effect.stats[1].half == pytest.approx(12.706 * 0.05)


def test_a_running_sweep_is_compared_where_it_can_be() -> None:
    effect = main_effect(grid(missing=(2, 3, 7)), "a", "score")  # a=1 b=2 is missing, and a=2 b=2 with seed 1
    assert effect is not None and effect.over == 1 and effect.range == pytest.approx(10.0), "b is 1 on both sides"
    assert main_effect(grid(missing=(4, 5, 6, 7)), "a", "score") is None, "one value alone"
    assert main_effect(grid(missing=(0, 1, 6, 7)), "a", "score") is None, "nothing in common"


def test_effects_are_drawn_for_each_axis_and_measure() -> None:
    table = SweepTable(sweep(), grid())
    assert [(effect.measure, effect.axis) for effect in main_effects(table)] == list(product(("score", "kid_1"), "ab"))
    assert len(effects_figure(table).axes) == 4
    (axes,) = effects_figure(SweepTable(sweep(), [row(0, {"a": 1}, 1.0), row(1, {"a": 2}, None)])).axes
    assert "no two values" in axes.texts[0].get_text()


def test_the_front_is_what_no_other_beats_in_both() -> None:
    points = [(0.5, 1.0), (0.4, 2.0), (0.7, 3.0), (0.7, 4.0), (0.9, 9.0)]
    rows = [row(n, {"a": n}, score, seconds=seconds) for n, (score, seconds) in enumerate(points)]
    table = SweepTable(sweep(), rows)
    assert [group.values["a"] for group, _, _ in pareto(table.groups, SCORE)] == [0, 2, 4]
    assert [(y, x) for _, y, x in pareto(table.groups, SCORE)] == [(0.5, 1.0), (0.7, 3.0), (0.9, 9.0)]
    assert [group.values["a"] for group, _, _ in pareto(table.groups, KID, SCORE)] == [1], "the least of a measure"
    figure = pareto_figure(table)
    assert [text.get_text() for text in figure.axes[0].texts] == ["a 0", "a 2", "a 4"]
    assert "seconds of a trial" in figure.axes[0].get_xlabel()
    assert "kid_1" in pareto_figure(table, cost="kid_1").axes[0].get_xlabel()
    with pytest.raises(UserError, match="'other'; expected one of score, kid_1"):
        pareto_figure(table, quality="other")
    assert "no trial" in pareto_figure(SweepTable(sweep(), [row(0, {"a": 1}, None)])).axes[0].texts[0].get_text()
