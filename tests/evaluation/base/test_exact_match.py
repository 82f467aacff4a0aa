"""Scores of answers: what counts as right, the honest baseline, intervals, confusion, and the switch to drawing."""

from __future__ import annotations

import math

import pytest

from vargpt_lightning.evaluation.base.exact_match import (
    OTHER,
    confusion,
    confusions,
    is_right,
    mode_switch,
    normalise,
    score,
    score_kinds,
    wilson,
)


def rows(pairs, kind="colour", split="test", drew=False):
    return [
        {"kind": kind, "split": split, "answer": answer, "expected": expected, "drew": drew}
        for answer, expected in pairs
    ]


@pytest.mark.parametrize(
    ("answer", "expected", "right"),
    [
        ("Yes.", "yes", True),
        (" light  BLUE!", "Light blue", True),
        ("Animals and Nature", "Animals & Nature", True),
        ("T-Rex", "t rex", True),
        ("reddish", "red", False),
        ("red blue", "red", False),
        ("dog (B)", "B", True),
        ("(b).", "B", True),
        ("dog (B) or cat (A)", "B", False),
        ("dog", "B", False),
        ("Bat", "B", False),
        ("", "red", False),
        ("!", "?", False),
    ],
)
def test_case_and_punctuation_do_not_matter_and_words_do(answer, expected, right):
    assert is_right(answer, expected) is right


def test_normalise_keeps_letters_of_any_language():
    assert normalise("Crème—Brûlée") == "crème brûlée"


def test_score_has_accuracy_error_and_margin():
    result = score(rows([("red", "red")] * 60 + [("red", "blue")] * 20 + [("blue", "blue")] * 20))
    assert (result.n, result.right, result.accuracy) == (100, 80, 0.8)
    assert result.standard_error == pytest.approx(0.04)
    assert (result.baseline, result.baseline_answer) == (0.6, "red")
    assert result.margin == pytest.approx(0.2 / math.sqrt(0.24 / 100))
    assert result.low < 0.8 < result.high


def test_the_baseline_is_the_better_of_both_majorities():
    asked = rows([("x", "red")] * 3 + [("x", "blue")] * 7)
    assert score(asked, {"red": 90, "blue": 10}).baseline == 0.7
    assert score(asked, {"Blue": 90, "red": 10}).baseline == 0.7
    assert score(rows([("x", "red"), ("x", "blue")]), {"green": 5}).baseline == 0.5


def test_a_perfect_score_has_a_finite_margin_and_no_rows_are_refused():
    result = score(rows([("a", "a")] * 5 + [("b", "b")] * 5))
    assert result.accuracy == 1 and result.margin == pytest.approx(0.5 / math.sqrt(0.25 / 10))
    assert score(rows([("a", "a")])).margin == 0
    with pytest.raises(ValueError, match="at least one"):
        score([])


def test_wilson_interval():
    assert wilson(8, 10) == pytest.approx((0.490, 0.943), abs=1e-3)
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(10, 10)[0] < 1 == pytest.approx(wilson(10, 10)[1])


def test_kinds_and_splits_are_scored_apart():
    found = score_kinds(
        [*rows([("a", "a")], "name", "train"), *rows([("a", "b")], "colour"), *rows([("b", "b")], "colour", "train")],
        {"colour": {"b": 3}},
    )
    assert found["colour"]["test"]["accuracy"] == 0 and found["colour"]["train"]["accuracy"] == 1
    assert set(found) == {"name", "colour"} and set(found["name"]) == {"train"}


def test_confusion_counts_what_is_taken_for_what():
    table = confusion(rows([("Bird", "bird"), ("bug", "bird"), ("ufo", "bug"), ("BUG.", "bug")]))
    assert table["labels"] == ["bird", "bug"] and table["columns"] == ["bird", "bug", OTHER]
    assert table["counts"] == [[1, 1, 0], [0, 1, 1]]


def test_confusions_are_of_heldout_pictures():
    asked = [*rows([("a", "a")], "category"), *rows([("b", "a")], "category", "train"), *rows([("c", "c")])]
    assert confusions(asked)["category"]["counts"] == [[1, 0]]
    assert set(confusions(asked)) == {"category"}


def test_mode_switch_counts_both_ways():
    drawings = [{"drew": True}] * 49 + [{"drew": False}]
    found = mode_switch(rows([("a", "a")] * 9) + rows([("", "a")], drew=True), drawings)
    assert found["drawing_prompts"]["rate"] == 0.98 and found["questions"]["count"] == 1
    assert found["questions"]["n"] == 10
    assert mode_switch([], [])["questions"]["rate"] is None
