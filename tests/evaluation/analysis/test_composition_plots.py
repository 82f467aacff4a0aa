"""Combinations: what was seen for what was asked for, and skills together beside the product of each alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from vargpt_lightning.evaluation.analysis.composition_plots import (
    confusion,
    confusion_figure,
    scene_verdicts,
    skill_figure,
    skill_table,
)
from vargpt_lightning.runs.folder import RunFolder
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import write_jsonl
from vargpt_lightning.utils.heldout import wilson

Names = list[tuple[str | None, str | None]]


def row(kind: str, split: str, asked: list[tuple[str, str]], seen: Names) -> dict[str, Any]:
    scene = {"kind": kind, "things": [list(each) for each in asked], "relation": None, "colours": kind == "colour"}
    things = [{"shape": shape, "colour": colour, "centre": [1.0, 1.0]} for shape, colour in seen]
    return {"id": "x", "kind": kind, "split": split, "prompt": "Draw.", "scene": scene, "things": things}


RED, BLUE, KITE = ("apple", "red"), ("apple", "blue"), ("kite", "red")
ROWS = [
    row("colour", "seen", [RED], [RED]),
    row("colour", "seen", [RED], [BLUE]),
    row("colour", "seen", [KITE], [RED]),
    row("colour", "seen", [KITE], [KITE, BLUE]),
    row("colour", "unseen", [BLUE], []),
    row("colour", "unseen", [BLUE], [(None, "blue")]),
    row("count", "seen", [RED] * 3, [BLUE, RED, BLUE]),
    row("count", "seen", [RED] * 3, [RED, RED]),
    row("pair", "unseen", [RED, KITE], [KITE, RED]),
    row("pair", "unseen", [RED, KITE], [KITE]),
]
VERDICTS = pd.DataFrame(ROWS)


def test_confusions_have_what_is_no_name_too() -> None:
    shapes = confusion(VERDICTS, "shape", "seen")
    assert list(shapes.index) == ["apple", "kite"] and list(shapes.columns) == ["apple", "kite", "none", "several"]
    assert shapes.to_numpy().tolist() == [[2, 0, 0, 0], [1, 0, 0, 1]]
    colours = confusion(VERDICTS, "colour", "unseen")
    assert list(colours.index) == ["blue", "red"] and list(colours.columns) == ["blue", "red", "none", "several"]
    assert colours.to_numpy().tolist() == [[1, 0, 1, 0], [0, 0, 0, 0]]
    assert confusion(VERDICTS, "shape", "unseen").loc["apple", "none"] == 2, "a thing without a clear name is none"
    assert confusion(VERDICTS, "shape", "never asked").to_numpy().sum() == 0


def test_each_skill_is_looked_at_whatever_the_others_are() -> None:
    table = skill_table(VERDICTS).set_index(["what", "split"])
    seen = table.loc[("shape and colour", "seen")]
    assert (seen["n"], seen["right"], seen["rate"]) == (4, 1, 0.25)
    assert seen["skills"] == "shape 75.0%, colour 75.0%, number 75.0%"
    assert seen["product"] == pytest.approx(27 / 64)
    assert (seen["low"], seen["high"]) == wilson(1, 4)
    assert seen["product_low"] < seen["product"] < seen["product_high"]
    assert table.loc[("shape and colour", "unseen"), "skills"] == "shape 0.0%, colour 50.0%, number 50.0%"
    assert table.loc[("thing and count", "seen"), "skills"] == "shape 100.0%, number 50.0%"
    pair = table.loc[("both things", "unseen")]
    assert (pair["right"], pair["skills"]) == (1, "first 50.0%, second 100.0%, number 50.0%")
    assert ("both things", "seen") not in table.index


def test_figures_show_the_tables() -> None:
    seen, unseen = confusion_figure(VERDICTS, "shape").axes
    assert seen.get_title(loc="left") == "seen combinations, 4 drawings"
    assert sorted(text.get_text() for text in seen.texts) == ["1", "1", "2"]
    assert [text.get_text() for text in unseen.texts] == ["2"]
    (axes,) = skill_figure(VERDICTS).axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == [
        "seen, together", "seen, product of single skills", "unseen, together", "unseen, product of single skills",
    ]  # fmt: skip
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        "shape and colour",
        "thing and count",
        "both things",
    ]


def test_figures_of_nothing_say_so() -> None:
    counts = VERDICTS[VERDICTS["kind"] == "count"]
    assert confusion_figure(counts, "colour").axes[0].texts[0].get_text() == "no request was for one thing in a colour"
    assert skill_figure(VERDICTS[:0]).axes[0].texts[0].get_text() == "no scene was asked for"


def test_verdicts_are_read_where_they_say_what_was_seen(tmp_path: Path) -> None:
    run = RunFolder.start(tmp_path / "run", config_text="")
    with pytest.raises(UserError, match="no such file; expected the evaluation of a run on scenes"):
        scene_verdicts(run.path)
    file = run.evaluation / "scene_verdicts.jsonl"
    write_jsonl(file, [{"id": "x", "right": True}])
    with pytest.raises(UserError, match="did not keep what the judge saw; `vargpt evaluate"):
        scene_verdicts(run.path)
    write_jsonl(file, ROWS)
    assert confusion(scene_verdicts(run.path), "shape", "seen").equals(confusion(VERDICTS, "shape", "seen"))
