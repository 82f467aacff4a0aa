"""What a run's last evaluation asks, and what a complete run leaves."""

from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import corpora, write_experiment
from vargpt_lightning.cli import main
from vargpt_lightning.data.scenes.records import SceneWriter, scene_pictures
from vargpt_lightning.data.scenes.scene import Scene, Thing
from vargpt_lightning.data.shards.format import write_source
from vargpt_lightning.data.shards.records import Record, TextPart, Turn
from vargpt_lightning.experiment.parser import load_experiment
from vargpt_lightning.experiment.schema import Experiment
from vargpt_lightning.runs.folder import RunFolder
from vargpt_lightning.training.final_evaluation import collect
from vargpt_lightning.utils.files import read_jsonl

Tree = dict[str, Any]
SIZE = 8


@pytest.fixture
def experiment(tiny_experiment: Tree, tmp_path: Path) -> Experiment:
    return load_experiment(["-c", str(write_experiment(tmp_path / "tiny.yaml", tiny_experiment))])


def with_evaluation(experiment: Experiment, **changes: Any) -> Experiment:
    return dataclasses.replace(experiment, evaluation=dataclasses.replace(experiment.evaluation, **changes))


def test_held_out_questions_and_a_drawing_of_each_picture_are_asked(experiment: Experiment) -> None:
    asked = collect(experiment, SIZE)
    assert [question.split for question in asked.questions] == ["val"] * 3
    assert Counter(drawing.split for drawing in asked.drawings) == {"train": 9, "val": 3}
    assert len({drawing.picture for drawing in asked.drawings}) == 12
    assert {picture.key for picture in asked.pictures} == {drawing.picture for drawing in asked.drawings}
    assert all(picture.image.size == (SIZE, SIZE) and picture.image.mode == "RGB" for picture in asked.pictures)
    assert len({drawing.seed for drawing in asked.drawings}) == 12, "each has its own"


def test_right_answers_of_the_training_questions_make_the_baseline(experiment: Experiment) -> None:
    asked = collect(experiment, SIZE)
    expected = Counter(str(record.meta["answer"]) for record in corpora()["questions"][:9])
    assert {kind: dict(answers) for kind, answers in asked.training_answers.items()} == {"colour": dict(expected)}


@pytest.mark.parametrize(
    ("changes", "train", "val"),
    [
        ({"heldout_drawings": False}, 9, 0),
        ({"drawings": 0}, 0, 3),
        ({"drawings_limit": 2}, 2, 2),
        ({"drawings_limit": 0}, 0, 0),
        ({"drawings_limit": 50}, 9, 3),
        ({"questions": 1}, 9, 3),
    ],
)
def test_settings_limit_what_is_drawn(changes: Tree, train: int, val: int, experiment: Experiment) -> None:
    asked = collect(with_evaluation(experiment, **changes), SIZE)
    counts = Counter(drawing.split for drawing in asked.drawings)
    assert (counts["train"], counts["val"]) == (train, val)
    assert len(asked.questions) == changes.get("questions", 3)
    assert len(asked.pictures) == 12, "the gallery stays whole"


def test_limited_drawings_are_spread_over_the_pictures(experiment: Experiment) -> None:
    asked = collect(with_evaluation(experiment, drawings_limit=3), SIZE)
    names = [record.id for record in corpora()["drawings"][:9]]
    assert [drawing.id for drawing in asked.drawings if drawing.split == "train"] == [names[0], names[3], names[6]]


def pack(experiment: Experiment, name: str, records: list[Record], folder: Path) -> None:
    write_source(records, folder, split="train")
    experiment.data.train[name] = str(folder)  # type: ignore[attr-defined]


def test_open_names_are_asked_of_training_pictures(experiment: Experiment, tmp_path: Path) -> None:
    names = [dataclasses.replace(record, meta=record.meta | {"kind": "name"}) for record in corpora()["questions"][:9]]
    pack(experiment, "questions", names, tmp_path / "names")
    asked = collect(with_evaluation(experiment, names=4), SIZE)
    assert Counter((question.kind, question.split) for question in asked.questions) == {
        ("name", "train"): 4,
        ("colour", "val"): 3,
    }
    again = collect(with_evaluation(experiment, names=4), SIZE)
    assert [question.id for question in again.questions] == [question.id for question in asked.questions]


def test_questions_of_other_corpora_are_asked_too(experiment: Experiment, tmp_path: Path) -> None:
    """Records of other projects name neither kind nor answer: the first answer is the right one."""
    plain = [dataclasses.replace(record, meta={}) for record in corpora()["questions"][:9]]
    long = Turn("assistant", (TextPart("word " * 30),))
    plain.append(dataclasses.replace(plain[0], id="long", turns=(plain[0].turns[0], long)))
    pack(experiment, "questions", plain, tmp_path / "plain")
    asked = collect(experiment, SIZE)
    own = [question for question in asked.questions if question.kind == "own"]
    assert {(question.kind, question.split) for question in asked.questions} == {("own", "train"), ("colour", "val")}
    assert [question.answer for question in own] == [record.turns[1].text for record in plain[:9]]
    assert sum(asked.training_answers["own"].values()) == 9
    assert len(collect(with_evaluation(experiment, names=4), SIZE).questions) == 4 + 3


def test_training_pictures_are_kept_where_scenes_are_drawn(experiment: Experiment, tmp_path: Path) -> None:
    assert collect(experiment, SIZE).training_pictures is None
    drawn = scene_pictures([Scene("colour", (Thing("kite", colour),)) for colour in ("red", "blue")], 32, 0, set())
    pack(experiment, "scene_drawings", list(SceneWriter(drawn, "train", 0).drawings()), tmp_path / "scenes")
    kept = collect(experiment, SIZE).training_pictures
    assert kept is not None and kept.total == 2 + 9, "the pictures of other corpora are among them"
    assert {cell for cell in kept.cells if cell} == {"kite, red", "kite, blue"}


def test_conversations_of_held_out_corpora_are_held(experiment: Experiment, tmp_path: Path) -> None:
    drawn = scene_pictures([Scene("colour", (Thing("kite", colour),)) for colour in ("red", "blue")], 32, 0, set())
    records = list(SceneWriter(drawn, "val", 0).conversations(3, (4, 4)))
    before = len(collect(experiment, SIZE).drawings)
    write_source(records, tmp_path / "talks", split="val")
    experiment.data.val["conversations"] = str(tmp_path / "talks")  # type: ignore[attr-defined]
    found = collect(experiment, SIZE)
    assert [talk.id for talk in found.talks] == [record.id for record in records]
    for talk, record in zip(found.talks, records, strict=True):
        assert talk.turns == tuple(turn.text for turn in record.turns if turn.role == "user")
        assert talk.draws == tuple(len(turn.parts) == 2 for turn in record.turns if turn.role == "assistant")
        assert len(talk.turns) == 4 and talk.draws[0]
    assert len(found.drawings) == before, "its drawings are asked for in the conversation alone"


def test_requests_for_scenes_take_each_combination_before_any_twice(experiment: Experiment, tmp_path: Path) -> None:
    asked = [Scene("colour", (Thing("kite", colour),)) for colour in ("red", "red", "red", "blue", "green")]
    drawn = scene_pictures(asked, 32, 0, set())
    write_source(SceneWriter(drawn, "val", 0).drawings(), tmp_path / "scenes", split="val")
    experiment.data.val["scene_drawings"] = str(tmp_path / "scenes")  # type: ignore[attr-defined]
    for count, cells in ((3, [1, 1, 1]), (4, [1, 1, 2]), (9, [1, 1, 3])):
        found = collect(with_evaluation(experiment, scene_drawings=count), SIZE)
        shown = {picture.key: picture.scene["things"][0][1] for picture in found.pictures if picture.scene}
        drawings = Counter(shown[each.picture] for each in found.drawings if each.picture in shown)
        assert sorted(drawings.values()) == cells


def test_a_complete_run_leaves_figures_pictures_and_a_report(debug_run: Path) -> None:
    run = RunFolder(debug_run)
    assert run.status == "finished"
    assert [stage.name for stage in run.stages()] == ["tokenizer", "base", "pretrain", "understanding", "generation"]
    for stage in run.stages():
        assert stage.status == "finished" and stage.weights.is_file() and not stage.checkpoint.exists()
        assert stage.record["steps"] == stage.record["total_steps"] and stage.record["seconds"] > 0
        assert {row.name for row in stage.metrics()} & {"train/l1", "train/text_loss", "train/image_loss"}
        assert any(row.name.startswith("val/") for row in stage.metrics())
    assert [bool(stage.samples()) for stage in run.stages()][:2] == [True, True]
    metrics = run.metrics()
    assert metrics["complete"] and len(metrics["headline"]) >= 5
    assert Counter(row["split"] for row in run.drawings())["train"] == 24
    assert run.report.stat().st_size > 50_000
    assert "OpenMoji" in run.report.read_text()
    assert set(run.record["durations"]) >= {"tokenizer", "generation", "evaluation"}
    assert run.record["stage_count"] == 5 and run.record["parameters"]["language_model"] > 0


def test_the_same_command_again_asks_nothing_twice(debug_run: Path, tmp_path: Path, capfd: Any) -> None:
    copied = Path(shutil.copytree(debug_run, tmp_path / "debug"))
    before = {name: read_jsonl(copied / "evaluation" / f"{name}.jsonl") for name in ("answers", "drawings")}
    # one row is lost: it alone is asked again
    answers = (copied / "evaluation" / "answers.jsonl").read_text().splitlines(keepends=True)
    (copied / "evaluation" / "answers.jsonl").write_text("".join(answers[:-1]))
    file = Path(__file__).resolve().parents[2] / "experiments" / "debug.yaml"
    assert main(["fit", "-c", str(file), "--run.root", str(tmp_path)]) == 0
    assert capfd.readouterr().out.count("finished before, skipped") == 5
    for name, rows in before.items():
        assert read_jsonl(copied / "evaluation" / f"{name}.jsonl") == rows
    assert RunFolder(copied).metrics()["headline"] == RunFolder(debug_run).metrics()["headline"]


def test_a_run_can_be_loaded_and_asked(debug_run: Path, tmp_path: Path, capfd: Any) -> None:
    assert main(["generate", str(debug_run), "Please draw a pear.", "--out", str(tmp_path), "--max-tokens", "8"]) == 0
    assert main(["runs", str(debug_run.parent)]) == 0
    assert "debug" in capfd.readouterr().out


def test_the_report_of_a_finished_run_says_so(debug_run: Path) -> None:
    page = (debug_run / "report.html").read_text(encoding="utf-8")
    assert "The run is running" not in page and "finished" in page
