"""Requests read back into the scenes that they ask for."""

from __future__ import annotations

import pytest

from vargpt_lightning.data.openmoji.wording import DRAW_ASKED
from vargpt_lightning.data.scenes.asked import scene_asked
from vargpt_lightning.data.scenes.scene import Scene, Thing, layouts
from vargpt_lightning.data.scenes.wording import placed_phrase, scene_phrase


def test_every_wording_of_a_scene_is_read_back() -> None:
    some = [Scene("pair", (Thing("T-shirt", "red"), Thing("puzzle piece", "blue")), "above", True)]
    some += [Scene("pair", (Thing("apple", "red"), Thing("fish", "blue")), "left of", False)]
    some += [Scene("count", (Thing("leaf", "orange"),) * 3, None, False), Scene("count", (Thing("fish", "red"),) * 4)]
    some += [Scene("colour", (Thing("octopus", "orange"),))]
    some += [Scene("colour", (Thing("kite", "pink"),), None, False)]
    for scene in some:
        phrases = [scene_phrase(scene, way, turned) for way in (0, 1) for turned in (False, True)]
        for layout in layouts(scene):
            phrases += [placed_phrase(scene, layout, scene.named_colours, turned) for turned in (False, True)]
        for phrase in phrases:
            for wording in DRAW_ASKED:
                assert scene_asked(wording.format(phrase)) == scene, wording.format(phrase)


@pytest.mark.parametrize(
    "text",
    ["What is this?", "Draw a horse face for me.", "Can you draw a bell pepper?", "Draw a four leaf clover.",
     "Draw a cat and a fish.", "Draw two cats left of a fish.", "Draw a cat, a fish and a star.", ""],
)  # fmt: skip
def test_what_asks_for_no_scene_is_none(text: str) -> None:
    assert scene_asked(text) is None
