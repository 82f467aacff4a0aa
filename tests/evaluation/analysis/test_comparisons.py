"""Runs beside each other: pairs are the same questions, intervals those of their differences."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from vargpt_lightning.evaluation.analysis.comparisons import (
    changed_answers,
    difference_figure,
    interval_figure,
    paired_differences,
    with_scores,
)
from vargpt_lightning.runs.predictions import COLUMNS as PREDICTION_COLUMNS
from vargpt_lightning.runs.tables import EVALUATION_COLUMNS
from vargpt_lightning.utils.errors import UserError


def table(*rows: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(PREDICTION_COLUMNS))


def question(run: str, number: int, answer: str, **more: Any) -> dict[str, Any]:
    known = {"source": "questions", "kind": "colour", "split": "test", "prompt": "Which?", "expected": "Red"}
    return {**known, "run": run, "id": f"q{number}", "answer": answer, "picture": f"p{number // 2}", **more}


def drawing(run: str, number: int, rank: float | None) -> dict[str, Any]:
    known = {"source": "drawings", "split": "train", "prompt": f"Draw {number}.", "answer": "Here:", "files": ["x.png"]}
    return {**known, "run": run, "id": f"d{number}", "rank": rank, "picture": f"p{number}"}


def test_each_kind_of_prediction_has_a_score() -> None:
    found = with_scores(
        table(
            question("a", 0, "red."), question("a", 1, "Blue"),
            drawing("a", 0, 0.0), drawing("a", 1, 4.0), drawing("a", 2, None),
            drawing("unmeasured", 0, None),
            {"run": "a", "source": "benchmarks/x", "id": "m", "value": 0.3, "answer": "yes", "expected": "no"},
        )
    )  # fmt: skip
    assert list(found["score"]) == [1.0, 0.0, 1.0, 0.0, 0.0, 0.3]
    assert list(found["kind"]) == ["colour"] * 2 + ["identification_1"] * 3 + [""]


def test_differences_are_over_the_questions_that_both_were_asked() -> None:
    said = {"base": ["Red", "Blue", "Blue", "Blue"], "other": ["Red", "Red", "Red", "Blue"]}
    rows = [question(run, number, answer) for run, all_ in said.items() for number, answer in enumerate(all_)]
    rows.append(question("other", 0, "Red"))  # asked again
    rows += [question("base", 8, "Red"), question("other", 0, "Blue", prompt="Which other?")]
    (found,) = paired_differences(table(*rows), "base").to_dict("records")
    assert (found["run"], found["source"], found["kind"], found["n"]) == ("other", "questions", "colour", 4)
    assert (found["base"], found["other"], found["difference"]) == (0.25, 0.75, 0.5)
    assert (found["better"], found["worse"]) == (2, 0)
    # two pictures with two questions each, and one gained on each: whatever is resampled, the difference is the same
    assert (found["low"], found["high"]) == (0.5, 0.5)


def test_the_same_answers_differ_by_nothing_and_a_clear_gain_is_seen() -> None:
    rows = [drawing("base", n, float(n % 2)) for n in range(60)] + [drawing("same", n, float(n % 2)) for n in range(60)]
    rows += [drawing("better", n, 0.0 if n % 3 else float(n % 2)) for n in range(60)]
    same, better = paired_differences(table(*rows), "base").to_dict("records")
    assert (same["difference"], same["low"], same["high"]) == (0.0, 0.0, 0.0)
    assert better["difference"] == pytest.approx(20 / 60) and 0.2 < better["low"] < 20 / 60 < better["high"] < 0.47
    figure = difference_figure(paired_differences(table(*rows), "base"))
    assert [axes.get_title(loc="left").split(":")[0] for axes in figure.axes] == ["same", "better"]
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["drawings: identification_1 train (n = 60)"]


def test_the_answers_that_changed_stand_beside_each_other() -> None:
    said = {"a": ["Red", "Blue", "Blue"], "b": ["red", "Lime", "Red"]}
    rows = [question(run, number, answer) for run, all_ in said.items() for number, answer in enumerate(all_)]
    changed = changed_answers(table(*rows))
    assert [row["id"] for row in changed.reset_index().to_dict("records")] == ["q2"]
    assert list(changed.iloc[0]) == ["Blue", "Red"] and list(changed.columns) == ["a", "b"]
    assert changed_answers(table(drawing("a", 0, 1.0))).empty and changed_answers(table()).empty


def test_an_unknown_run_is_named_with_those_there() -> None:
    with pytest.raises(UserError, match="'c'; expected one of the runs with predictions: a, b"):
        paired_differences(table(question("a", 0, "Red"), question("b", 0, "Red")), "c")
    (axes,) = difference_figure(paired_differences(table(question("a", 0, "Red")), "a")).axes
    assert paired_differences(table(), "a").empty
    assert "nothing to compare" in axes.texts[0].get_text()


def test_figures_with_intervals_stand_beside_each_other() -> None:
    rows = [(run, "questions", name, "test", 0.5, 0.4, 0.6, 9) for run in "ab" for name in ("colour", "name")]
    rows.append(("a", "questions", "all", "test", 1.0, 0.7, 1.0 - 1e-16, 9))
    rows.append(("a", "headline", "kid", None, 3.0, None, None, None))
    evaluations = pd.DataFrame(rows, columns=list(EVALUATION_COLUMNS))
    (axes,) = interval_figure(evaluations).axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["questions: colour, test", "questions: name, test", "questions: all, test"]
    assert len(axes.containers) == 2
    (axes,) = interval_figure(evaluations.tail(1)).axes
    assert "no metric has an interval" in axes.texts[0].get_text()
