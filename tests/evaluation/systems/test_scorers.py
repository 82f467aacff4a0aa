"""Scorers by their names."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from tests.evaluation.pictures import write_transformers_clip
from tests.evaluation.systems.test_openai_endpoint import Service, said, service
from vargpt_lightning.evaluation.features.clip import transformers_clip
from vargpt_lightning.evaluation.metrics.clip_score import cosine_scores
from vargpt_lightning.evaluation.systems.scorers import asked_for, find_scorer
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import write_jsonl

assert service  # a fixture

WRONG = [
    ("identificaton:x", r"scorer: 'identificaton'; there are .*did you mean 'identification'\?"),
    ("identification", r"scorer: got 'identification', expected identification:FOLDER, the evaluation of a run"),
    ("composition:x", r"scorer: got 'composition:x', expected composition by itself"),
    ("vqa_score", r"scorer: got 'vqa_score', expected vqa_score:MODEL"),
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


def test_clip_scores_are_those_of_the_measure(tmp_path: Path) -> None:
    folder = write_transformers_clip(tmp_path / "clip")
    pictures, texts = [drawn("disc", "red"), drawn("square", "blue")], ["a red disc", "a cat"]
    model = transformers_clip(str(folder))
    wanted = cosine_scores(model.pictures(pictures), model.texts(texts)[0]).tolist()
    assert find_scorer(f"clip:{folder}")(pictures, texts) == pytest.approx(wanted)


def test_an_endpoint_says_how_likely_it_is_to_see_a_request(service: Service) -> None:
    def script(question: str, attempt: int) -> dict[str, Any]:
        share = 0.75 if "a disc" in question else 0.25
        tokens = [{"token": "Yes", "logprob": math.log(share)}, {"token": "No", "logprob": math.log(1 - share)}]
        return {"choices": [{**said("Yes")["choices"][0], "logprobs": {"content": [{"top_logprobs": tokens}]}}]}

    service.script = script
    score = find_scorer(f"vqa_score:openai:{service.url}#tiny")
    assert score([drawn("disc", "red")] * 2, ["a disc", "a square"]) == pytest.approx([0.75, 0.25])
