"""Held-out figures are of all held-out pictures: in the headline, tables, report, sweeps, and of older runs too."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.evaluation.conftest import Fake, World
from vargpt_lightning.evaluation.base.exact_match import score_kinds
from vargpt_lightning.evaluation.base.figures import headline, heldout_drawings, table
from vargpt_lightning.evaluation.reports.report import build_report
from vargpt_lightning.evaluation.run.runner import evaluate
from vargpt_lightning.results import load_runs
from vargpt_lightning.runs.folder import RunFolder, list_runs
from vargpt_lightning.sweep.measures import read_measure
from vargpt_lightning.utils.files import write_json
from vargpt_lightning.utils.heldout import heldout_scores, with_heldout


def rows(kind, split, right, wrong):
    """Answers of two classes, as many of each as there are right ones and wrong ones."""
    asked = [("a", "a"), ("b", "b")] * right + [("b", "a"), ("a", "b")] * wrong
    return [{"kind": kind, "split": split, "answer": answer, "expected": expected} for answer, expected in asked]


ANSWERS = [
    *rows("category", "val", 20, 0),
    *rows("category", "test", 10, 10),
    *rows("colour", "val", 20, 1),  # above the majority answer on val alone
    *rows("colour", "test", 3, 18),
    *rows("name", "train", 5, 5),
]


@pytest.fixture
def old(tmp_path):
    """A run whose evaluation was scored before there were figures of all held-out pictures."""
    run = RunFolder.start(tmp_path / "old")
    scores = score_kinds(ANSWERS)
    for by_split in scores.values():
        by_split.pop("heldout", None)
    metrics = {"questions": scores, "open_kinds": ["name"], "settings": {"aims": {"questions": 0.9}}}
    said = {"key": "questions", "name": "kinds of questions answered", "value": 1.0, "text": "2 of 2"}
    metrics["headline"] = [{**said, "baseline": "above", "good": True, "verdict": "aim 90 % reached"}]
    write_json(run.evaluation / "metrics.json", metrics)
    return run


def test_a_kind_is_scored_on_all_heldout_splits_together():
    scores = score_kinds(ANSWERS)
    assert {split: score["n"] for split, score in scores["category"].items()} == {"val": 40, "test": 40, "heldout": 80}
    assert scores["category"]["heldout"]["accuracy"] == 0.75 and "heldout" not in scores["name"]
    found = {item["key"]: item for item in headline({"questions": scores, "open_kinds": ["name"]})}["questions"]
    assert found["text"] == "1 of 2" and not found["good"] and "164" in found["baseline"]


def test_the_headline_of_an_older_run_is_made_anew_wherever_it_is_read(old):
    metrics = old.metrics()
    known = score_kinds(ANSWERS)
    for kind, score in heldout_scores(metrics).items():
        for key in ("n", "right", "accuracy", "low", "high", "baseline", "margin"):
            assert score[key] == pytest.approx(known[kind]["heldout"][key]), key
    (item,) = metrics["headline"]
    assert (item["text"], item["value"], item["good"]) == ("1 of 2", 0.5, False) and "missed" in item["verdict"]
    assert with_heldout(metrics) is metrics
    assert list_runs(old.path)[0]["headline"]["kinds of questions answered"] == "1 of 2"
    assert read_measure(old, "questions") == 0.5
    assert read_measure(old, "questions.colour.heldout.n") == 84
    table = load_runs(old.path).evaluations.set_index(["source", "name"])
    assert table.loc[("headline", "questions"), "value"].item() == 0.5
    assert "1 of 2" in build_report(old).read_text()


def test_figures_that_are_none_of_ours_stay_as_they_are():
    for metrics in ({}, {"headline": [{"key": "questions", "value": 1.0}]}, {"questions": {"name": {"train": {}}}}):
        assert with_heldout(metrics) == metrics


@pytest.fixture
def split_world(world):
    """The small world with its held-out pictures in two splits."""
    splits = {"teal": "val"}
    change = lambda items, key: [replace(item, split=splits.get(key(item), item.split)) for item in items]  # noqa: E731
    pictures, questions = change(world.pictures, lambda p: p.key), change(world.questions, lambda q: q.picture)
    return World(questions, change(world.drawings, lambda d: d.picture), pictures)


def test_drawings_and_reconstructions_are_measured_on_all_heldout_pictures(split_world, tmp_path):
    run = RunFolder.start(tmp_path / "run")
    metrics = evaluate(Fake(), Fake(), **split_world.arguments(run.evaluation), reconstruct=list)
    drawn = metrics["drawings"]
    counts = {split: figures["prompts"] for split, figures in drawn.items()}
    assert counts == {"train": 6, "val": 1, "test": 1, "heldout": 2}
    assert drawn["heldout"]["identification"]["n"] == 2 and drawn["heldout"]["same_category"]["n"] == 2
    assert set(metrics["reconstruction_psnr"]) == {"train", "val", "test", "heldout"}
    labels = [row["label"] for row in table(metrics)]
    assert labels.count("drawings for held-out prompts") == 1 and len(labels) == len(set(labels))
    said = build_report(run).read_text()
    assert said.count("of the right category for") == 1
    older = {**metrics, "drawings": {split: drawn[split] for split in ("train", "val", "test")}}
    assert heldout_drawings(older)["same_category"] == pytest.approx(drawn["heldout"]["same_category"])
    assert len({row["label"] for row in table(older)}) == len(table(older))


def test_a_distance_below_zero_has_a_word_beside_it(split_world, tmp_path):
    metrics = evaluate(Fake(), Fake(), **split_world.arguments(tmp_path))
    assert metrics["baselines"]["same"]["kid_x1000"] < 0
    assert any("below zero" in note for note in metrics["notes"])
    metrics["baselines"]["blur"]["kid_x1000"] = -2.5
    (kid,) = [item for item in headline(metrics) if item["key"] == "kid"]
    assert "−2.5" in kid["baseline"] and not kid["good"] and "too few" in kid["verdict"]
