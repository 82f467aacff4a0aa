"""The composition sheet of a report, made of files whose figures are known."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.evaluation.reports.test_report import Page
from vargpt_lightning.data.scenes.scene import Scene, Thing, draw_scene, layouts
from vargpt_lightning.evaluation.base.files import save_picture
from vargpt_lightning.evaluation.composition.figures import rate
from vargpt_lightning.evaluation.composition.training_pictures import TrainingPictures
from vargpt_lightning.evaluation.reports.report import build_report
from vargpt_lightning.runs.folder import RunFolder
from vargpt_lightning.utils.files import read_json, write_json, write_jsonl

PAIR = (Thing("kite", "pink"), Thing("apple", "red"))
SCENES = {
    "u-1": ("Draw a blue apple.", Scene("colour", (Thing("apple", "blue"),)), True),
    "u-2": ("Draw three <kites>.", Scene("count", (Thing("kite", "pink"),) * 3), False),
    "s-1": ("Draw a pink kite.", Scene("colour", (Thing("kite", "pink"),)), False),
    "s-2": ("Draw a kite left of an apple.", Scene("pair", PAIR, "left of"), True),
}  # fmt: skip
SILENT = "s-1"


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """Four requests: two of held-out combinations, one of them drawn rightly; one that brought no picture."""
    run = RunFolder.start(tmp_path / "run", config_text="name: scenes\n", seed=0)
    verdicts, drawings = [], []
    for name, (prompt, scene, right) in SCENES.items():
        file = f"drawings/{name}.png"
        save_picture(run.evaluation / file, Image.fromarray(draw_scene(scene, layouts(scene)[0], 64).pixels_HWC))
        files = [] if name == SILENT else [file]
        split = "unseen" if name.startswith("u") else "seen"
        reason = "" if right else "no picture" if name == SILENT else "2 things, 3 asked for"
        verdicts.append({"id": name, "split": split, "prompt": prompt, "files": files, "kind": scene.kind})
        verdicts[-1] |= {"cell": scene.cell, "right": right, "reason": reason}
        row = {"id": name, "split": "test" if split == "unseen" else "val", "prompt": prompt, "picture": name}
        drawings.append(row | {"files": files, "text": "", "drew": bool(files), "scales": [], "scale_counts": []})
    write_jsonl(run.evaluation / "scene_verdicts.jsonl", verdicts)
    write_jsonl(run.evaluation / "drawings.jsonl", drawings)
    near = {"place": 1, "nearest_cell": "apple, red", "nearest_name": "a red apple", "distance": 0.1}
    write_jsonl(run.evaluation / "nearest_training.jsonl", [{**verdicts[0], **near}])
    ground = np.full((3, 32, 32, 3), 255, np.uint8)
    cells = ("kite, pink", "apple, red", "")
    TrainingPictures(ground, cells, ("a pink kite", "a red apple", "leaf"), 3).save(run.evaluation)
    hit, miss = rate([True] * 3 + [False]), rate([False])
    metrics: dict[str, Any] = {"complete": True, "version": 1}
    metrics["composition"] = {
        "unseen": {"colour": hit, "count": miss, "geneval": 0.625},
        "seen": {"colour": miss, "pair": hit, "geneval": 0.75},
        "judge": {"real": {key: rate([True] * 9) for key in ("colour", "shape", "count", "relation")}},
        "ceiling": {"real": {"colour": rate([True] * 9), "geneval": 1.0}},
        "agreement": {"colour": hit, "all": hit},
        "copies": {"training": 3, "of": 3, "unseen": {"same_cell": rate([False] * 7), "median_distance": 0.1}},
    }
    write_json(run.evaluation / "metrics.json", metrics)
    run.end("finished")
    return run


def report(run: RunFolder) -> tuple[str, Page, str]:
    """The page's text as it is, parsed, and as it is read."""
    text = build_report(run).read_text()
    said = re.sub(r"<style>.*?</style>|<[^>]+>", " ", text, flags=re.S)
    return text, Page(text), " ".join(html.unescape(said).split())


def test_the_report_opens_with_the_sheet(run: RunFolder) -> None:
    _, page, said = report(run)
    assert page.ids[0] == "composition" and page.open == []
    assert page.loads and all(load.startswith(("data:image/", "#")) for load in page.loads)
    assert "Words it never saw drawn" not in said and "heldout" not in page.ids
    assert "It learned from 3 pictures." in said


def test_cells_are_framed_ticked_or_empty(run: RunFolder) -> None:
    text, _, said = report(run)
    grid = text[text.index('class="blocks"') : text.index("<h3>Counts")]
    tiles = re.findall(r'<div class="(tile[^"]*)"', grid)
    assert len(tiles) == 2 * 8, "two shapes in eight colours"
    # drawn: a held-out one and a trained one; the red apple is trained and was not asked for, all else is held out
    assert {kind: tiles.count(kind) for kind in set(tiles)} == {
        "tile unseen": 1, "tile": 1, "tile empty": 1, "tile empty unseen": 13,
    }  # fmt: skip
    assert grid.count('class="badge"') == 1 and grid.count("no picture</span>") == 1
    assert "1 of the 1 held-out cells asked for are right; 0 of the 1 trained cells asked for are right." in said
    assert "combinations of shape and colour (14 of 16)" in said


def test_counts_and_pairs_have_prompts_marks_and_what_is_wrong(run: RunFolder) -> None:
    text, _, said = report(run)
    counts = text[text.index("<h3>Counts") : text.index("<h3>Pairs")]
    pairs = text[text.index("<h3>Pairs") : text.index("<h3>How often")]
    assert "tile unseen" in counts and "badge" not in counts and "Draw three &lt;kites&gt;." in counts
    assert "tile unseen" not in pairs and pairs.count('class="badge"') == 1
    assert "2 things, 3 asked for" in said and "Draw a kite left of an apple." in said


def test_rates_stand_beside_the_judges_own(run: RunFolder) -> None:
    _, _, said = report(run)
    assert "shape and colour 75 % 30.1 – 95.4, n 4 0 % 0.0 – 79.3, n 1 100 % 70.1 – 100.0, n 9 –" in said
    assert "mean of the categories 62.5 % 75 % 100 % –" in said
    assert "relation – – 100 % 70.1 – 100.0, n 9 –" in said
    assert "it says what was asked for colour 75 %" in said


def test_the_nearest_training_pictures_are_shown(run: RunFolder) -> None:
    text, _, said = report(run)
    assert "In 0 of the 7 drawings of held-out combinations the nearest training picture shows the same" in said
    assert "The nearest is the one of 3 training pictures whose" in said
    assert "Draw a blue apple. nearest in training: a red apple" in said
    assert text.count('alt="the nearest training picture: a red apple"') == 1


def test_without_drawings_there_are_no_copies(run: RunFolder) -> None:
    metrics = read_json(run.evaluation / "metrics.json")
    metrics["composition"]["copies"] = {"training": 3, "of": 3}
    write_json(run.evaluation / "metrics.json", metrics)
    assert "Are they copies?" not in report(run)[2]


@pytest.mark.parametrize("missing", ["scene_verdicts.jsonl", "training_pictures.png", "drawings"])
def test_a_sheet_is_made_of_what_there_is(run: RunFolder, missing: str, tmp_path: Path) -> None:
    (run.evaluation / missing).rename(tmp_path / "gone")
    _, page, said = report(run)
    assert page.open == [] and page.ids[0] == "composition"
    assert "shape and colour 75 %" in said
    assert ("Are they copies?" in said) == (missing != "training_pictures.png")


def test_runs_without_scenes_have_no_sheet(run: RunFolder) -> None:
    metrics = read_json(run.evaluation / "metrics.json")
    del metrics["composition"]
    write_json(run.evaluation / "metrics.json", metrics)
    text, page, said = report(run)
    assert "composition" not in page.ids and ".tile" not in text
    assert "Words it never saw drawn" in said
