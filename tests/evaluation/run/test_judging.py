"""Judges score the drawings of an evaluation besides, and are held to what they return."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.evaluation.conftest import Fake
from vargpt_lightning.evaluation import judges
from vargpt_lightning.evaluation.base.figures import judge_table
from vargpt_lightning.evaluation.base.judge import Verdict
from vargpt_lightning.evaluation.run.runner import EvaluationSettings, evaluate
from vargpt_lightning.evaluation.run.scoring import score_folder
from vargpt_lightning.experiment.schema import EvaluationConfig
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import read_jsonl


def run(world: Any, out: Any, *names: str) -> dict[str, Any]:
    settings = EvaluationSettings(answer_batch=3, draw_batch=3, judges=names)
    return evaluate(Fake(), Fake(), **{**world.arguments(out), "settings": settings, "reconstruct": list})


def test_identification_is_a_judge_and_agrees_with_the_headline_figure(world, tmp_path):
    out = tmp_path
    settings = EvaluationSettings(answer_batch=3, draw_batch=3, judges=("identification",))
    arguments = world.arguments(out) | {"settings": settings, "features": None}
    metrics = evaluate(Fake(), Fake(), **arguments)
    said, figure = metrics["judges"]["identification"]["splits"], metrics["drawings"]["train"]["identification"]
    assert said["train"]["prompts"] == said["train"]["pictures"] == figure["n"] == 6
    assert said["train"]["mean"] == figure["rate_1"] and said["train"]["low"] <= said["train"]["mean"]
    assert (said["test"]["prompts"], said["test"]["pictures"]) == (2, 1), "for teal it drew nothing"
    assert said["heldout"] == said["test"]
    ranks = {row["id"]: row["rank"] for row in read_jsonl(out / "drawing_scores.jsonl")}
    rows = read_jsonl(out / "judgements.jsonl")
    assert {row["id"]: row["score"] for row in rows} == {id_: float(rank == 0) for id_, rank in ranks.items()}
    assert {row["judge"] for row in rows} == {"identification"} and "a red thing" in {row["label"] for row in rows}
    table = judge_table(metrics)
    assert [row["pictures"] for row in table] == ["6 of 6", "1 of 2"] and table[0]["judge"] == "identification"


def test_no_judge_leaves_nothing(world, tmp_path):
    metrics = run(world, tmp_path)
    assert "judges" not in metrics and not (tmp_path / "judgements.jsonl").exists() and judge_table(metrics) == []


WRONG = [
    (lambda drawn, real: [Verdict(1.0)], "judge 'fake' returned 1 verdicts for 7 drawings; expected one for each"),
    (lambda drawn, real: [0.5] * 7, "judge 'fake' returned 0.5; expected a Verdict"),
    (lambda drawn, real: [Verdict(float("nan"))] * 7, "judge 'fake': the score nan; expected a finite number"),
    (lambda drawn, real: None, "judge 'fake' returned 1 verdicts for 7 drawings"),
]


@pytest.mark.parametrize(("judge", "told"), WRONG, ids=[told for _, told in WRONG])
def test_what_are_no_verdicts_is_refused_and_what_was_drawn_is_kept(world, tmp_path, monkeypatch, judge, told):
    monkeypatch.setattr(judges, "get", lambda name: SimpleNamespace(NAME=name, TITLE="", judge=judge))
    with pytest.raises(UserError, match=told):
        run(world, tmp_path, "fake")
    assert len(read_jsonl(tmp_path / "drawings.jsonl")) == 8
    monkeypatch.setattr(judges, "get", lambda name: SimpleNamespace(NAME=name, TITLE="x", judge=halves))
    from tests.evaluation.conftest import colour_features

    assert score_folder(tmp_path, colour_features)["judges"]["fake"]["splits"]["train"]["mean"] == 0.5


def halves(drawn: Any, real: Any) -> list[Verdict]:
    assert {each.picture for each in drawn} <= {picture.key for picture in real} and all(each.prompt for each in drawn)
    return [Verdict(0.5, each.prompt) for each in drawn]


def test_a_judge_that_there_is_not_is_told_before_anything_is_asked() -> None:
    with pytest.raises(UserError, match=r"judge: 'identificaton'; there are .*did you mean 'identification'"):
        EvaluationSettings(judges=("identificaton",))
    with pytest.raises(UserError, match=r"evaluation.judges: judge: 'nobody'; there are identification"):
        EvaluationConfig(judges=["nobody"])
