"""The composition section of an evaluation, from asking to figures, with systems whose answers are known."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from vargpt_lightning.data.scenes.scene import Scene, Thing, draw_scene, layouts
from vargpt_lightning.data.scenes.wording import own_question, scene_phrase
from vargpt_lightning.evaluation.base.protocols import AnswerRequest, Drawing, Question, RealPicture, Reply, Talk
from vargpt_lightning.evaluation.reports.summary import markdown
from vargpt_lightning.evaluation.run.runner import evaluate
from vargpt_lightning.utils.files import read_jsonl

APPLE, KITE = Thing("apple", "blue"), Thing("kite", "pink")
SCENES = {
    "seen-1": Scene("colour", (KITE,)),
    "seen-2": Scene("pair", (KITE, Thing("star", "yellow")), "left of", named_colours=False),
    "unseen-1": Scene("colour", (APPLE,)),
    "unseen-2": Scene("count", (APPLE,) * 3, named_colours=False),
    "unseen-3": Scene("pair", (APPLE, KITE), "above", named_colours=False),
}
SPLIT = {"seen": "val", "unseen": "test"}


def picture(scene: Scene, seed: int = 0) -> Image.Image:
    layout = random.Random(seed).choice(layouts(scene))
    return Image.fromarray(draw_scene(scene, layout, 64).pixels_HWC)


class Painter:
    """Draws all but the pair rightly; where it is to draw an apple and a kite, it draws apples alone."""

    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Reply]:
        scenes = {scene_phrase(scene): scene for scene in SCENES.values()}
        wrong = Scene("count", (APPLE,) * 2)
        return [
            Reply("Here it is:", (picture(wrong if "above" in prompt else scenes[prompt], seed + 9),))
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]

    def talk(self, talks: Sequence[Talk]) -> list[list[Reply]]:
        """Draws whenever it is asked to please, and once too often."""
        drawing, words = Reply("", (picture(SCENES["seen-1"]),)), Reply("No.")
        return [
            [drawing if turn.startswith("Please") or place == 3 else words for place, turn in enumerate(talk.turns)]
            for talk in talks
        ]

    def answer(self, requests: Sequence[AnswerRequest]) -> list[str]:
        return ["Three" if request.prompt.startswith("How many") else "Blue" for request in requests]


def asked() -> tuple[list[Drawing], list[RealPicture]]:
    drawings, pictures = [], []
    for name, scene in SCENES.items():
        split = SPLIT[name.split("-")[0]]
        drawings.append(Drawing(name, scene_phrase(scene), 1, f"real-{name}", split))
        pictures.append(
            RealPicture(f"real-{name}", picture(scene), name, split, "scene", scene.kind, scene.described())
        )
    return drawings, pictures


def test_composition_from_asking_to_figures(tmp_path: Path) -> None:
    drawings, pictures = asked()
    question = Question("q", "scene_colour", "What colour is the apple?", "Blue", "real-unseen-1", "test")
    texts = {"scene_colour": {"What colour is the apple?": {"Red": 3, "Green": 1}}}
    metrics = evaluate(
        Painter(),
        Painter(),
        questions=[question],
        drawings=drawings,
        pictures=pictures,
        out=tmp_path,
        training_prompts=texts,
        reconstruct=lambda images: list(images),
    )
    found = metrics["composition"]
    assert {key: value["right"] for key, value in found["unseen"].items()} == {
        "all": 2, "colour": 1, "count": 1, "pair": 0,
        "single_object": 1, "two_object": 0, "counting": 1, "colors": 1, "position": 0,
    }  # fmt: skip
    assert (found["seen"]["colour"]["rate"], found["seen"]["pair"]["rate"]) == (1.0, 1.0)
    for of in ("real", "tokenizer"):
        assert {key: value["rate"] for key, value in found["judge"][of].items()} == dict.fromkeys(
            ("colour", "shape", "count", "relation"), 1.0
        )
        assert set(found["ceiling"][of]) == {"all", "colour", "count", "pair"} | {
            "single_object", "two_object", "counting", "colors", "position",
        }  # fmt: skip
        assert {each["rate"] for each in found["ceiling"][of].values()} == {1.0}
    assert "copies" not in found  # no training pictures were kept
    # asked back: two colours of which one is blue, one count, and two pairs answered with a colour
    assert {kind: (value["right"], value["n"]) for kind, value in found["agreement"].items()} == {
        "colour": (1, 2), "pair": (0, 2), "count": (1, 1), "all": (2, 5),
    }  # fmt: skip
    assert "identification" not in str(metrics.get("drawings"))
    assert metrics["questions"]["scene_colour"]["test"]["accuracy"] == 1.0
    assert metrics["questions"]["scene_colour"]["test"]["text_alone"] == 0.0
    headline = {figure["key"]: figure["value"] for figure in metrics["headline"]}
    assert (headline["unseen_colour"], headline["unseen_count"], headline["unseen_pair"]) == (1.0, 1.0, 0.0)
    rows = read_jsonl(tmp_path / "geneval.jsonl")
    assert {row["tag"] for row in rows} == {"single_object", "two_object", "counting", "colors", "position"}
    verdicts = {row["id"]: row for row in read_jsonl(tmp_path / "scene_verdicts.jsonl")}
    assert (verdicts["unseen-3"]["split"], verdicts["unseen-3"]["reason"]) == ("unseen", "shows apple, apple")
    assert verdicts["unseen-3"]["scene"] == SCENES["unseen-3"].described()
    assert [(each["shape"], each["colour"]) for each in verdicts["unseen-3"]["things"]] == [("apple", "blue")] * 2
    (kite,) = verdicts["seen-1"]["things"]
    assert (kite["shape"], kite["colour"]) == ("kite", "pink")
    drawing = Image.open(tmp_path / verdicts["seen-1"]["files"][0]).convert("L")
    left, top, right, bottom = ImageOps.invert(drawing).getbbox() or (0, 0, 0, 0)  # of all that is not white
    assert kite["centre"] == pytest.approx([(left + right) / 2, (top + bottom) / 2], abs=1.5)
    assert "drawings of unseen combinations: thing and count" not in markdown([metrics])  # seen counts were not asked
    assert "drawings of unseen combinations: shape and colour" in markdown([metrics])


def test_turns_of_conversations_draw_if_they_should_and_only_then(tmp_path: Path) -> None:
    texts = ("Please draw a kite.", "What is this?", "Please draw an apple.", "Is it red?")
    drawings, pictures = asked()
    talks = [Talk("one", texts, (True, False, True, False)), Talk("two", texts[:3], (True, False, True))]
    given = {"questions": [], "drawings": drawings, "pictures": pictures, "talks": talks, "out": tmp_path}
    metrics = evaluate(Painter(), Painter(), **given)
    found = metrics["turn_switch"]
    assert (found["count"], found["n"]) == (6, 7)
    assert {turn: value["rate"] for turn, value in found["by_turn"].items()} == {"1": 1.0, "2": 1.0, "3": 1.0, "4": 0.0}
    assert "turns of conversations (7) that draw if they should and only then | **85.7 %**" in markdown([metrics])


def test_a_request_without_a_picture_is_wrong(tmp_path: Path) -> None:
    class Silent(Painter):
        def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Reply]:
            return [Reply("No.") for _ in prompts]

    drawings, pictures = asked()
    metrics = evaluate(None, Silent(), questions=[], drawings=drawings, pictures=pictures, out=tmp_path)
    unseen = metrics["composition"]["unseen"]
    assert (unseen["colour"]["rate"], unseen["colour"]["n"]) == (0.0, 1)
    assert {str(row["things"]) for row in read_jsonl(tmp_path / "scene_verdicts.jsonl")} == {"[]"}


@pytest.mark.parametrize(
    ("scene", "question", "answer"),
    [
        (SCENES["unseen-1"], "What colour is the apple?", "Blue"),
        (SCENES["unseen-2"], "How many apples are there?", "Three"),
        (SCENES["unseen-3"], "What is above the kite?", "An apple"),
    ],
)
def test_what_is_asked_back(scene: Scene, question: str, answer: str) -> None:
    assert own_question(scene) == (question, answer)
