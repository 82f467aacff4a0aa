"""The runner asks everything once, survives a kill, and scores from the files alone."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from PIL import Image

from tests.evaluation.conftest import Fake, Stopped, colour_features
from vargpt_lightning.evaluation.base.files import cut_strip, file_stem
from vargpt_lightning.evaluation.base.protocols import ImageModel, TextModel, as_reply
from vargpt_lightning.evaluation.harness.progress import benchmark_progress
from vargpt_lightning.evaluation.run.runner import EvaluationSettings, evaluate
from vargpt_lightning.evaluation.run.scoring import score_folder
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import read_jsonl

SMALL = EvaluationSettings(answer_batch=3, draw_batch=3)


def run(fake, world, out, **more):
    return evaluate(fake, fake, **{**world.arguments(out), "settings": SMALL, **more})


def test_a_whole_evaluation(world, tmp_path):
    fake = Fake()
    assert isinstance(fake, TextModel) and isinstance(fake, ImageModel)
    metrics = run(fake, world, tmp_path, reconstruct=list)
    assert metrics == json.loads((tmp_path / "metrics.json").read_text()) and metrics["complete"]
    assert metrics["questions"]["colour"]["test"]["accuracy"] == 1
    assert metrics["mode_switch"]["drawing_prompts"] | {"low": 0, "high": 0} == {
        "n": 8, "count": 7, "rate": 7 / 8, "low": 0, "high": 0,
    }  # fmt: skip
    train, test = metrics["drawings"]["train"]["identification"], metrics["drawings"]["test"]["identification"]
    assert (train["n"], train["at_1"]) == (6, 5)  # for orange it drew red
    assert (test["n"], test["at_1"]) == (2, 1)  # for teal it drew nothing
    assert train["chance_1"] == 1 / 8 and train["chance_5"] == 5 / 8
    assert [row["rank"] for row in read_jsonl(tmp_path / "drawing_scores.jsonl")][-1] == 0
    assert metrics["drawings"]["train"]["same_subcategory"]["count"] == 5
    assert {item["key"] for item in metrics["headline"]} >= {"identification_1", "kid", "questions"}


def test_baselines_stand_beside_the_figures(world, tmp_path):
    metrics = run(Fake(), world, tmp_path, reconstruct=list)
    base = metrics["baselines"]
    assert set(base) == {"reconstruction", "same", "heldout_real", "blur_fine", "blur", "noise"}
    assert base["reconstruction"]["kid_x1000"] == pytest.approx(base["same"]["kid_x1000"])
    assert base["reconstruction"]["identification"]["rate_1"] == 1
    assert base["noise"]["kid_x1000"] > base["blur"]["kid_x1000"]
    assert metrics["reconstruction_psnr"]["train"] == pytest.approx(100)
    assert "never with published" in metrics["notes"][0]


def test_files_hold_what_was_asked_and_answered(world, tmp_path):
    run(Fake(), world, tmp_path)
    answers = read_jsonl(tmp_path / "answers.jsonl")
    assert [row["id"] for row in answers] == [question.id for question in world.questions]
    assert answers[0] | {"hash": ""} == {
        "id": "red/0", "hash": "", "kind": "colour", "split": "train", "prompt": "0? Say red", "picture": "red",
        "options": [], "expected": "red", "answer": "red", "drew": False,
    }  # fmt: skip
    drawing = read_jsonl(tmp_path / "drawings.jsonl")[0]
    with Image.open(tmp_path / drawing["files"][0]) as picture:
        assert picture.getpixel((3, 3)) == (255, 0, 0)
    with Image.open(tmp_path / drawing["scales"][0]) as strip:
        first, last = cut_strip(strip, drawing["scale_counts"][0])
    assert first.getpixel((8, 8)) == (128, 128, 128) and last.getpixel((8, 8)) == (255, 0, 0)


@pytest.mark.parametrize("batches", [0, 2, 5, 7])
def test_a_killed_evaluation_goes_on_and_asks_nothing_twice(world, tmp_path, batches):
    whole = run(Fake(), world, tmp_path / "whole")
    killed, second = Fake(batches=batches), Fake()
    with pytest.raises(Stopped):
        run(killed, world, tmp_path / "cut")
    assert not (tmp_path / "cut" / "metrics.json").exists()
    resumed = run(second, world, tmp_path / "cut")
    assert killed.asked + second.asked == [question.id for question in world.questions]
    assert killed.drawn + second.drawn == [(drawing.prompt, drawing.seed) for drawing in world.drawings]
    assert resumed == whole


def test_old_figures_do_not_stand_beside_new_answers(world, tmp_path):
    run(Fake(), world, tmp_path)
    with pytest.raises(Stopped):
        run(Fake(batches=2), world, tmp_path, model="weights-2")
    assert not (tmp_path / "metrics.json").exists()


def test_torn_lines_and_lost_pictures_are_made_again(world, tmp_path):
    run(Fake(), world, tmp_path)
    answers = tmp_path / "answers.jsonl"
    answers.write_bytes(answers.read_bytes()[:-20])
    lost = tmp_path / read_jsonl(tmp_path / "drawings.jsonl")[2]["files"][0]
    lost.unlink()
    fake = Fake()
    assert run(fake, world, tmp_path)["complete"]
    assert fake.asked == [world.questions[-1].id] and fake.drawn == [("Draw blue", 2)]
    assert len(read_jsonl(answers)) == len(world.questions) and lost.is_file()


def test_a_finished_evaluation_asks_nothing(world, tmp_path):
    run(Fake(), world, tmp_path)
    fake = Fake()
    assert run(fake, world, tmp_path, settings=EvaluationSettings(answer_batch=1))["complete"]
    assert fake.asked == [] and fake.drawn == []


@pytest.mark.parametrize("change", [{"model": "weights-2"}, {"sampling": {"cfg": 3.0}}])
def test_another_model_or_sampling_is_asked_anew(world, tmp_path, change):
    run(Fake(), world, tmp_path)
    fake = Fake(wrong="no")
    metrics = run(fake, world, tmp_path, **change)
    assert len(fake.asked) == len(world.questions) and len(fake.drawn) == len(world.drawings)
    assert metrics["questions"]["colour"]["train"]["accuracy"] == 0
    assert len(read_jsonl(tmp_path / "answers.jsonl")) == len(world.questions)


def test_only_what_changed_is_asked_anew(world, tmp_path):
    run(Fake(), world, tmp_path)
    world.questions[3] = replace(world.questions[3], prompt="Say nothing")
    world.pictures[7] = replace(world.pictures[7], image=Image.new("RGB", (16, 16), "white"))
    fake = Fake()
    run(fake, world, tmp_path)
    assert fake.asked == ["green/1", "brown/0", "brown/1"] and fake.drawn == [("Draw brown", 7)]


def test_parts_can_be_left_out_without_losing_the_others(world, tmp_path):
    fake = Fake()
    evaluate(fake, None, **world.arguments(tmp_path))
    metrics = evaluate(None, fake, **world.arguments(tmp_path))
    assert metrics["questions"] and metrics["drawings"] and metrics["complete"]
    metrics = evaluate(None, fake, **{**world.arguments(tmp_path), "model": "weights-2"})
    assert not metrics["questions"] and metrics["drawings"]


def test_figures_come_from_the_files_alone(world, tmp_path):
    metrics = run(Fake(), world, tmp_path, training_answers={"colour": {"red": 5}})
    (tmp_path / "metrics.json").unlink()
    assert score_folder(tmp_path, features=colour_features) == metrics
    rows = (tmp_path / "answers.jsonl").read_text().replace('"answer": "teal"', '"answer": "grey"')
    (tmp_path / "answers.jsonl").write_text(rows)
    assert score_folder(tmp_path, features=colour_features)["questions"]["colour"]["test"]["accuracy"] == 0.5
    with pytest.raises(UserError, match=r"inputs\.json is missing"):
        score_folder(tmp_path / "real")


def test_an_incomplete_evaluation_says_so(world, tmp_path):
    run(Fake(), world, tmp_path)
    rows = (tmp_path / "drawings.jsonl").read_text().splitlines()[:3]
    (tmp_path / "drawings.jsonl").write_text("\n".join(rows) + "\n")
    assert score_folder(tmp_path, features=colour_features)["complete"] is False


def test_aims_are_judged(world, tmp_path):
    settings = EvaluationSettings(aims={"identification_1": 0.5, "identification_5": 0.99, "kid": -1e9})
    found = {item["key"]: item for item in run(Fake(), world, tmp_path, settings=settings)["headline"]}
    assert found["identification_1"]["verdict"] == "aim 50 % reached" and found["identification_1"]["good"]
    assert found["identification_5"]["good"] is (found["identification_5"]["value"] >= 0.99)
    assert found["kid"]["verdict"].endswith("missed") and not found["kid"]["good"]


def test_what_cannot_be_is_refused(world, tmp_path):
    for change, words in (
        ({"questions": world.questions[:1] * 2}, "two questions have the id 'red/0'"),
        ({"pictures": world.pictures[1:]}, "'red'.* not given"),
    ):
        with pytest.raises(UserError, match=words):
            run(Fake(), world, tmp_path, **change)
    with pytest.raises(UserError, match="answer_batch: 0"):
        EvaluationSettings(answer_batch=0)
    short = Fake()
    short.answer = lambda requests: ["yes"]  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="1 came back for 3"):
        run(short, world, tmp_path)


def test_replies_of_any_kind_become_one():
    assert as_reply(" yes ").text == "yes" and not as_reply("yes").drew
    assert as_reply("ok <image_gen_start>").drew
    with pytest.raises(TypeError, match="int"):
        as_reply(3)


def test_file_names_are_safe_and_differ():
    names = ["a b", "a/b", "../a", "a-b", "ä", "x" * 200, "x" * 201, ".hidden"]
    stems = [file_stem(name) for name in names]
    assert len(set(stems)) == len(names) and not any("/" in stem or stem.startswith(".") for stem in stems)
    assert file_stem("1F34C-draw-0") == "1F34C-draw-0"


def test_progress_tells_how_many_are_done(world, tmp_path):
    seen = []
    run(Fake(), world, tmp_path, progress=lambda title, done, total: seen.append((title, done, total)))
    assert ("answers", 0, 16) in seen and ("answers", 16, 16) in seen and ("drawings", 8, 8) in seen
    last = {title: (done, total) for title, done, total in seen}
    assert "picture features" in last and all(done == total for done, total in last.values())
    with benchmark_progress() as progress:
        progress("answers", 1, 2)


def test_the_report_and_the_scores_of_answers_need_no_torch():
    code = (
        "import sys; import vargpt_lightning.evaluation.reports.report, vargpt_lightning.evaluation.reports.curves, "
        "vargpt_lightning.evaluation.base.sheets, vargpt_lightning.evaluation.base.exact_match; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
