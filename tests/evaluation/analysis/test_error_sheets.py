"""Sheets of answers and drawings show the pictures that they are about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vargpt_lightning.evaluation.analysis.comparisons import with_scores
from vargpt_lightning.evaluation.analysis.error_sheets import drawing_sheet, question_sheet, select
from vargpt_lightning.evaluation.base.sheets import RIGHT, WRONG
from vargpt_lightning.results import load_runs
from vargpt_lightning.runs.folder import RunFolder
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import write_jsonl


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = RunFolder.start(tmp_path / "run")
    for name in ("red", "blue", "lime"):
        (run.evaluation / "real").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), name).save(run.evaluation / "real" / f"{name}.png")
    known = [{"id": name, "files": [f"real/{name}.png"]} for name in ("red", "blue")]
    write_jsonl(run.evaluation / "pictures.jsonl", known)
    asked = {"prompt": "Which?", "split": "test", "kind": "colour"}
    write_jsonl(
        run.evaluation / "answers.jsonl",
        [asked | {"id": "q0", "picture": "red", "answer": "Red", "expected": "Red"},
         asked | {"id": "q1", "picture": "blue", "answer": "", "expected": "Blue"}],
    )  # fmt: skip
    drawn = {"split": "test", "text": "", "prompt": "Draw red.", "picture": "red"}
    files = [["real/lime.png"], []]
    write_jsonl(run.evaluation / "drawings.jsonl", [drawn | {"id": f"d{n}", "files": f} for n, f in enumerate(files)])
    write_jsonl(run.evaluation / "drawing_scores.jsonl", [{"id": "d0", "rank": 1, "nearest": "blue"}])
    return run.path


def colours(sheet: Image.Image) -> set[str]:
    found = {colour for _, colour in sheet.getcolors(10**6)}  # type: ignore[union-attr]
    wanted = {"red": (255, 0, 0), "blue": (0, 0, 255), "lime": (0, 255, 0)}
    wanted |= {name: tuple(bytes.fromhex(code[1:])) for name, code in (("right", RIGHT), ("wrong", WRONG))}  # type: ignore[misc]
    return {name for name, colour in wanted.items() if colour in found}


def test_a_filter_lets_through_what_it_names(run: Path) -> None:
    scored = with_scores(load_runs(run).predictions)

    def ids(source: str, **wanted: Any) -> list[str]:
        return list(select(scored, source, **wanted)["id"])

    assert ids("questions") == ["q0", "q1"] and ids("drawings") == ["d0", "d1"]
    assert ids("questions", right=True) == ["q0"] and ids("questions", right=False) == ["q1"]
    assert ids("questions", word="bLUE") == ["q1"] and ids("questions", word="Which?", right=True) == ["q0"]
    assert ids("questions", kind="colour", split="test") == ["q0", "q1"]
    assert ids("questions", kind="name") == ids("questions", split="val") == ids("questions", word="x") == []
    assert ids("questions", kind="name", word="x") == []


def test_answers_are_shown_with_their_pictures(run: Path) -> None:
    answers = load_runs(run).predictions.query("source == 'questions'")
    assert colours(question_sheet(run, answers)) == {"red", "blue", "right", "wrong"}
    assert colours(question_sheet(run, answers.tail(1))) == {"blue", "wrong"}
    with pytest.raises(UserError, match="widen the filter"):
        question_sheet(run, answers.head(0))


def test_drawings_are_shown_between_what_was_meant_and_what_is_near(run: Path) -> None:
    drawings = load_runs(run).predictions.query("source == 'drawings'")
    assert colours(drawing_sheet(run, drawings)) == {"red", "lime", "blue"}
    with pytest.raises(UserError, match="widen the filter"):
        drawing_sheet(run, drawings.tail(1))  # nothing was drawn there


def test_a_missing_picture_is_named(run: Path) -> None:
    (run / "evaluation/real/red.png").unlink()
    with pytest.raises(UserError, match=r"red\.png"):
        question_sheet(run, load_runs(run).predictions.query("source == 'questions'"))
