"""The judge of scenes as a scorer: the share of a request that a picture shows."""

from __future__ import annotations

import pytest
from PIL import Image

from vargpt_lightning.data.scenes.scene import Scene, Thing
from vargpt_lightning.evaluation.composition.reading import Reading, SeenThing
from vargpt_lightning.evaluation.composition.scoring import scene_scores, share_right
from vargpt_lightning.evaluation.composition.verdicts import judge_scene

APPLE, KITE = Thing("apple", "green"), Thing("kite", "pink")
LEFT, RIGHT, TOP = (10.0, 30.0), (50.0, 30.0), (30.0, 5.0)


def seen(shape: str | None, colour: str | None, centre: tuple[float, float] = LEFT) -> SeenThing:
    return SeenThing(shape, colour, centre)


ONE = Scene("colour", (APPLE,))
TWO = Scene("count", (KITE, KITE), None, False)
PAIR = Scene("pair", (APPLE, KITE), "left of", True)
CASES = [
    (ONE, [seen("apple", "green")], 1),
    (ONE, [seen("apple", "red")], 2 / 3),
    (ONE, [seen("kite", "green")], 1 / 3),
    (ONE, [seen(None, "green")], 1 / 3),
    (ONE, [seen("apple", "red"), seen("apple", "green", RIGHT)], 2 / 3),
    (ONE, [], 0),
    (TWO, [seen("kite", "red"), seen("kite", None, RIGHT)], 1),
    (TWO, [seen("kite", "pink")], 1 / 3),
    (PAIR, [seen("apple", "green"), seen("kite", "pink", RIGHT)], 1),
    (PAIR, [seen("kite", "pink"), seen("apple", "green", RIGHT)], 5 / 6),
    (PAIR, [seen("apple", "green"), seen("star", "pink", RIGHT)], 3 / 6),
]


@pytest.mark.parametrize(("scene", "things", "share"), CASES)
def test_what_a_request_says_is_counted(scene: Scene, things: list[SeenThing], share: float) -> None:
    reading = Reading(tuple(things))
    assert share_right(scene, reading) == pytest.approx(share)
    assert (share_right(scene, reading) == 1) == judge_scene(scene, reading).right


def test_a_request_for_no_scene_scores_nothing() -> None:
    white = Image.new("RGB", (64, 64), "white")
    assert scene_scores([white] * 2, ["Draw a horse face.", "Draw an apple."], lambda things: []) == [0.0, 0.0]
