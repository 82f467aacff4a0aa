from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.untrained import scripted
from vargpt_lightning.commands.evaluate import main
from vargpt_lightning.evaluation.base.protocols import Drawing, Question, RealPicture
from vargpt_lightning.evaluation.composition.training_pictures import TrainingPictures
from vargpt_lightning.evaluation.run.examine import Asked, examine, load_asked
from vargpt_lightning.evaluation.run.runner import EvaluationSettings
from vargpt_lightning.evaluation.systems.own import OwnModel
from vargpt_lightning.inference.load import load_run
from vargpt_lightning.runs.folder import RunFolder
from vargpt_lightning.utils.errors import UserError

COLOURS = ("red", "green", "blue", "white")


def asked() -> Asked:
    pictures = [
        RealPicture(colour, Image.new("RGB", (8, 8), colour), colour, "train" if place < 2 else "test")
        for place, colour in enumerate(COLOURS)
    ]
    questions = [Question(f"q-{c}", "colour", "Which colour?", c.capitalize(), c, "test") for c in COLOURS[2:]]
    drawings = [Drawing(f"d-{colour}", f"Draw {colour}.", 5, colour) for colour in COLOURS[:2]]
    return Asked(questions, drawings, pictures, {"colour": {"Red": 3}})


@pytest.fixture(scope="module")
def evaluated_run(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose model answered Blue to all, and drew; nothing may change it."""
    folder = Path(shutil.copytree(finished_run, tmp_path_factory.mktemp("evaluated") / "tiny"))
    with pytest.MonkeyPatch.context() as patch:
        say = scripted(patch)
        say("Blue")
        run = load_run(folder)
        everything = asked()
        examine(run.folder, run, Asked(everything.questions, [], everything.pictures, everything.training_answers))
        say("*")
        examine(run.folder, run, everything, EvaluationSettings(answer_batch=1))
    return folder


@pytest.fixture
def evaluated(evaluated_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(evaluated_run, tmp_path / "tiny"))


def answers(folder: Path) -> list[str]:
    return [json.loads(line)["answer"] for line in (folder / "evaluation" / "answers.jsonl").read_text().splitlines()]


def test_a_run_is_examined_and_reported(evaluated: Path) -> None:
    run = RunFolder(evaluated)
    metrics = run.metrics()
    assert metrics["complete"] and metrics["questions"]["colour"]["test"]["right"] == 1
    assert metrics["drawings"]["train"]["pictures"] == 2
    assert run.record["durations"]["evaluation"] > 0 and "<html" in run.report.read_text()
    row = json.loads((run.evaluation / "drawings.jsonl").read_text().splitlines()[0])
    assert row["scale_counts"] == [3]


def test_what_was_asked_is_read_again(evaluated: Path) -> None:
    again, settings, generation = load_asked(evaluated / "evaluation")
    before = asked()
    assert (again.questions, again.drawings) == (before.questions, before.drawings)
    assert again.pictures == before.pictures and again.training_answers == before.training_answers
    assert [picture.image.tobytes() for picture in again.pictures] == [p.image.tobytes() for p in before.pictures]
    assert settings.answer_batch == 1 and generation.max_new_tokens == 256
    assert again.training_pictures is None


def test_training_pictures_are_kept_for_another_evaluation(evaluated: Path, script, tmp_path: Path) -> None:
    kept = TrainingPictures(np.zeros((1, 32, 32, 3), np.uint8), ("kite, red",), ("a red kite",), 1)
    kept.save(evaluated / "evaluation")
    script("White")
    assert main([str(evaluated), "--out", str(tmp_path / "other"), "--cfg", "1"]) == 0
    again = load_asked(tmp_path / "other")[0].training_pictures
    assert again is not None and (again.cells, again.names) == (kept.cells, kept.names)


def test_evaluate_asks_everything_again(evaluated: Path, script, capsys: pytest.CaptureFixture[str]) -> None:
    (evaluated / "report.html").unlink()
    script("White")
    assert main([str(evaluated)]) == 0
    assert answers(evaluated) == ["White", "White"]
    assert (evaluated / "report.html").is_file()
    said = capsys.readouterr().out
    figures = RunFolder(evaluated).metrics()["headline"]
    assert figures and all(figure["name"] in said and figure["text"] in said for figure in figures)
    assert f"report: {evaluated / 'report.html'}" in said


def test_an_interrupted_evaluation_goes_on(evaluated: Path, script, monkeypatch) -> None:
    script("White", "Green")
    done = OwnModel.answer

    def break_off(self, requests):
        if requests[0].id == "q-white":
            raise KeyboardInterrupt
        return done(self, requests)

    monkeypatch.setattr(OwnModel, "answer", break_off)
    with pytest.raises(KeyboardInterrupt):
        main([str(evaluated)])
    monkeypatch.setattr(OwnModel, "answer", done)
    script("Red")
    main([str(evaluated)])
    assert answers(evaluated) == ["White", "Red"]


def test_another_folder_leaves_the_run_alone(evaluated: Path, tmp_path: Path, script) -> None:
    report = (evaluated / "report.html").read_bytes()
    figures = (evaluated / "evaluation" / "metrics.json").read_bytes()
    script("White")
    assert main([str(evaluated), "--out", str(tmp_path / "other"), "--cfg", "3", "--stage", "pretrain"]) == 0
    other = json.loads((tmp_path / "other" / "metrics.json").read_text())
    assert other["sampling"]["cfg"] == 3.0 and other["complete"]
    assert (evaluated / "report.html").read_bytes() == report
    assert (evaluated / "evaluation" / "metrics.json").read_bytes() == figures


@pytest.mark.parametrize(("words", "what"), [(["--cfg", "3"], "sampling"), (["--stage", "pretrain"], "model")])
def test_a_folder_of_other_figures_is_refused(
    evaluated: Path, tmp_path: Path, script, words: list[str], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "other"
    script("White")
    assert main([str(evaluated), "--out", str(out)]) == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=rf"other holds the metrics of another {what}: .*--out, or --replace") as error:
        main([str(evaluated), "--out", str(out), *words])
    assert "\n" not in str(error.value) and len(str(error.value)) < 300
    assert what == "model" or "another sampling: cfg=1.5, and this is cfg=3.0;" in str(error.value)
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    script("Red")
    assert main([str(evaluated), "--out", str(out), *words, "--replace"]) == 0
    made = json.loads((out / "metrics.json").read_text())
    rows = [json.loads(line)["answer"] for line in (out / "answers.jsonl").read_text().splitlines()]
    assert made["complete"] and rows == ["Red", "Red"]


def test_report_only_asks_nothing(evaluated: Path, monkeypatch) -> None:
    monkeypatch.setattr("vargpt_lightning.inference.load.load_run", None)
    (evaluated / "report.html").unlink()
    (evaluated / "evaluation" / "metrics.json").unlink()
    assert main([str(evaluated), "--report-only"]) == 0
    assert RunFolder(evaluated).metrics()["complete"] and (evaluated / "report.html").is_file()


def test_the_answers_of_another_folder_are_scored_there(
    evaluated: Path, tmp_path: Path, script, monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script("White")
    assert main([str(evaluated), "--out", str(tmp_path / "other")]) == 0
    own = {path: path.read_bytes() for path in evaluated.rglob("*") if path.is_file()}
    (tmp_path / "other" / "metrics.json").unlink()
    monkeypatch.setattr("vargpt_lightning.inference.load.load_run", None)
    assert main([str(evaluated), "--out", str(tmp_path / "other"), "--report-only"]) == 0
    assert json.loads((tmp_path / "other" / "metrics.json").read_text())["complete"]
    assert own == {path: path.read_bytes() for path in evaluated.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=r"none/asked\.json is missing"):
        main([str(evaluated), "--out", str(tmp_path / "none"), "--report-only"])


def test_a_run_that_was_never_evaluated_says_so(finished_run: Path) -> None:
    with pytest.raises(UserError, match=r"asked\.json is missing: the run was not evaluated yet"):
        main([str(finished_run)])


def test_a_missing_picture_is_named(evaluated: Path) -> None:
    (evaluated / "evaluation" / "real" / "red.png").unlink()
    with pytest.raises(UserError, match=r"cannot be read again.*red\.png"):
        main([str(evaluated)])


@pytest.mark.parametrize("cfg", ["3", "0"])
def test_other_settings_do_not_take_the_place_of_a_runs_own_figures(evaluated: Path, cfg: str) -> None:
    with pytest.raises(UserError, match="--cfg need --out DIR"):
        main([str(evaluated), "--cfg", cfg])
