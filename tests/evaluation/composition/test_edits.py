"""Pictures to change: asked, kept, and judged by the colour that was asked for and the shape that was to stay."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from PIL import Image

from vargpt_lightning.data.scenes.cells import hold_out
from vargpt_lightning.data.scenes.edits import edits
from vargpt_lightning.data.scenes.scene import Scene, ScenePicture, Thing, draw_scene, layouts, scene_of
from vargpt_lightning.evaluation.base.protocols import Edit, Reply
from vargpt_lightning.evaluation.composition.edits import edit_from_record, is_edit
from vargpt_lightning.evaluation.composition.verdicts import EDIT_VERDICTS
from vargpt_lightning.evaluation.reports.report import build_report
from vargpt_lightning.evaluation.run.runner import evaluate
from vargpt_lightning.runs.folder import RunFolder
from vargpt_lightning.utils.files import read_jsonl, write_json

HELD_OUT = hold_out(0.25, 0)


def scene_picture(shape: str, colour: str) -> ScenePicture:
    scene = Scene("colour", (Thing(shape, colour),))
    return draw_scene(scene, layouts(scene)[4], 64)


def asked() -> list[Edit]:
    """Two edits of each split, from records as corpora have them."""
    found = []
    for split, unseen in (("val", False), ("test", True)):
        cells = list(product(("apple", "star", "heart"), ("red", "blue", "green", "yellow")))
        some = [scene_picture(*cell) for cell in cells if HELD_OUT.colour(*cell) == unseen]
        records = list(edits(some, HELD_OUT, 2, split, 0))
        assert len(records) == 2 and all(map(is_edit, records))
        found += [edit_from_record(record, split, seed) for seed, record in enumerate(records)]
    return found


class Editor:
    """Changes pictures as it is told by their requests' places: rightly, to another colour or shape, or not at all."""

    def __init__(self, wanted: Sequence[Edit], how: Mapping[int, str]) -> None:
        self.wanted, self.how, self.asked = {each.seed: each for each in wanted}, how, 0

    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Reply]:
        raise AssertionError(prompts)

    def edit(self, prompts: Sequence[str], pictures: Sequence[Image.Image], seeds: Sequence[int]) -> list[Reply]:
        self.asked += len(prompts)
        replies = []
        for prompt, picture, seed in zip(prompts, pictures, seeds, strict=True):
            each = self.wanted[seed]
            shown = Image.open(io.BytesIO(base64.b64decode(each.shown))).convert("RGB")
            assert (prompt, picture.tobytes()) == (each.prompt, shown.tobytes())
            (thing,) = scene_of(each.scene).things
            colour = "pink" if self.how[seed] == "colour" else thing.colour
            shape = "kite" if self.how[seed] == "shape" else thing.shape
            changed = Image.fromarray(scene_picture(shape, colour).pixels_HWC)
            replies.append(Reply("So.", () if self.how[seed] == "none" else (changed,)))
        return replies


def test_rates_are_those_of_what_is_seen_and_unseen(tmp_path: Path) -> None:
    wanted = [replace(each, seed=place) for place, each in enumerate(asked())]
    editor = Editor(wanted, {0: "right", 1: "colour", 2: "shape", 3: "none"})
    given: dict[str, Any] = {"questions": [], "drawings": [], "pictures": [], "edits": wanted, "out": tmp_path}
    metrics = evaluate(None, editor, **given)
    rates = {
        split: {part: (found["right"], found["n"]) for part, found in parts.items()}
        for split, parts in metrics["edits"].items()
    }
    assert rates == {
        "seen": {"colour": (1, 2), "shape": (2, 2), "both": (1, 2)},
        "unseen": {"colour": (1, 2), "shape": (0, 2), "both": (0, 2)},
    }
    rows = read_jsonl(tmp_path / EDIT_VERDICTS)
    assert [row["both"] for row in rows] == [True, False, False, False] and rows[3]["files"] == []
    (figure,) = [each for each in metrics["headline"] if each["key"] == "unseen_edits"]
    assert figure["value"] == 0 and figure["baseline"] == "trained combinations 50 %"
    evaluate(None, editor, **given)
    assert editor.asked == 4, "what was answered is not asked again"


def test_the_report_shows_pictures_before_and_after(tmp_path: Path) -> None:
    run = RunFolder.start(tmp_path / "run", config_text="name: edits\n", seed=0)
    wanted = [replace(each, seed=place) for place, each in enumerate(asked())]
    editor = Editor(wanted, {0: "right", 1: "colour", 2: "shape", 3: "none"})
    given: dict[str, Any] = {"questions": [], "drawings": [], "pictures": [], "edits": wanted}
    write_json(run.evaluation / "metrics.json", evaluate(None, editor, **given, out=run.evaluation))
    for row in read_jsonl(run.evaluation / EDIT_VERDICTS):
        with Image.open(run.evaluation / row["before"]) as before:
            each = next(each for each in wanted if each.id == row["id"])
            assert before.tobytes() == Image.open(io.BytesIO(base64.b64decode(each.shown))).convert("RGB").tobytes()
    page = build_report(run).read_text("utf-8")
    section = page[page.index('<section id="edits">') :].partition("</section>")[0]
    assert section.count('alt="before"') == 4 and section.count('alt="after') == 3
    assert section.count('class="badge"') == 1 and section.count("the judge sees nothing") == 1
    assert "50 %" in section and all(each.prompt in section for each in wanted) and "2 of" not in section
