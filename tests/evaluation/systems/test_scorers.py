"""Scorers by their names."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from vargpt_lightning.evaluation.systems.scorers import asked_for, find_scorer
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import write_jsonl

WRONG = [
    ("identificaton:x", r"scorer: 'identificaton'; there are .*did you mean 'identification'\?"),
    ("identification", r"scorer: got 'identification', expected identification:FOLDER, the evaluation of a run"),
    ("identification:nowhere", r"scorer: nowhere holds 0 real pictures; expected the evaluation folder of a run"),
]


@pytest.mark.parametrize(("name", "told"), WRONG, ids=[name for name, _ in WRONG])
def test_what_is_no_scorer_is_refused(name: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        find_scorer(name)


def test_the_longest_name_in_a_request_is_asked_for() -> None:
    asked = asked_for(["apple", "green apple", "ant"])
    assert [asked(text) for text in ("A Green Apple, please", "an apple", "elephant", "")] == [1, 0, None, None]


def test_what_is_like_the_picture_asked_for_scores_more(tmp_path: Path) -> None:
    rows = []
    for name, colour in (("disc", "red"), ("square", "blue")):
        picture = drawn(name, colour)
        (tmp_path / "real").mkdir(exist_ok=True)
        picture.save(tmp_path / "real" / f"{name}.png")
        rows.append({"id": name, "name": name, "files": [f"real/{name}.png"]})
    write_jsonl(tmp_path / "pictures.jsonl", rows)
    score = find_scorer(f"identification:{tmp_path}")
    own, other, neither = score([drawn("disc", "red")] * 3, ["a disc", "a square", "a cat"])
    assert own > 0 > other and own == pytest.approx(-other, abs=1e-5) and neither == 0


def drawn(shape: str, colour: str) -> Image.Image:
    picture = Image.new("RGB", (64, 64), "white")
    draw = ImageDraw.Draw(picture)
    (draw.ellipse if shape == "disc" else draw.rectangle)((12, 12, 52, 52), fill=colour)
    return picture
