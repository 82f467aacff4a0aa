"""The judge of scenes reads what is there, without knowing what was asked for, and says none where nothing is."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image, ImageFilter

from vargpt_lightning.data.scenes.cells import hold_out
from vargpt_lightning.data.scenes.compose import SceneCounts, scenes
from vargpt_lightning.data.scenes.scene import Scene, Thing, draw_scene, layouts, scene_of
from vargpt_lightning.evaluation.composition.colour_names import colour_name, oklab
from vargpt_lightning.evaluation.composition.figures import PARTS, geneval_rows, skill_rates
from vargpt_lightning.evaluation.composition.objects import regions
from vargpt_lightning.evaluation.composition.reading import Reading, SeenThing, read_pictures, relation
from vargpt_lightning.evaluation.composition.shape_names import ShapeNames, shape_names
from vargpt_lightning.evaluation.composition.verdicts import judge_scene
from vargpt_lightning.evaluation.systems.scorers import find_scorer


@pytest.fixture(scope="module")
def names() -> ShapeNames:
    return shape_names()


def pictures_of(held_out: Sequence[Scene]) -> list[Image.Image]:
    rng = random.Random(5)
    return [Image.fromarray(draw_scene(scene, rng.choice(layouts(scene)), 64).pixels_HWC) for scene in held_out]


def test_real_held_out_scenes_are_read_rightly(names: ShapeNames) -> None:
    """On every fourth held-out scene, sharp and a little soft: 99 % of all that it says."""
    counts = SceneCounts(colour=1, count=1, pair=1, placings=1)
    asked = list(scenes(hold_out(0.25, 0), counts, unseen=True, seed=0))[::4]
    sharp = pictures_of(asked)
    soft = [picture.filter(ImageFilter.GaussianBlur(0.6)) for picture in sharp]
    for those, least in ((sharp, 0.99), (soft, 0.95)):
        right = [judge_scene(*each).right for each in zip(asked, read_pictures(those, names), strict=True)]
        assert len(right) > 50
        assert np.mean(right) >= least


def test_as_a_scorer_it_reads_what_is_asked_for_from_the_request(names: ShapeNames) -> None:
    apple = pictures_of([Scene("colour", (Thing("apple", "green"),))])
    found = find_scorer("composition")(apple * 3, ["Draw a green apple.", "Draw a red apple.", "Hello!"])
    assert found == pytest.approx([1, 2 / 3, 0])


def test_what_was_asked_for_is_not_what_it_goes_by(names: ShapeNames) -> None:
    asked = Scene("pair", (Thing("kite", "pink"), Thing("apple", "red")), "left of")
    shown = {
        "right": asked,
        "colours": Scene("pair", (Thing("kite", "blue"), Thing("apple", "red")), "left of"),
        "the kite is right of": Scene("pair", (Thing("apple", "red"), Thing("kite", "pink")), "left of"),
        "shows": Scene("pair", (Thing("kite", "pink"), Thing("star", "red")), "left of"),
        "4 things, 2": Scene("count", (Thing("kite", "pink"),) * 4),
    }
    readings = read_pictures(pictures_of(list(shown.values())), names)
    verdicts = [judge_scene(asked, reading) for reading in readings]
    assert [verdict.right for verdict in verdicts] == [True, False, False, False, False]
    for words, verdict in list(zip(shown, verdicts, strict=True))[1:]:
        assert words in verdict.reason


def test_nothing_is_guessed(names: ShapeNames) -> None:
    white, noise = Image.new("RGB", (64, 64), "white"), np.random.default_rng(0).integers(0, 256, (64, 64, 3))
    empty, speckled = read_pictures([white, Image.fromarray(noise.astype(np.uint8))], names)
    assert empty.things == ()
    assert all(thing.colour is None for thing in speckled.things)
    assert names([]) == []


def test_regions_are_things_and_specks_are_not() -> None:
    pixels_HW3 = np.full((64, 64, 3), 255, np.uint8)
    pixels_HW3[5:20, 40:60] = (210, 47, 39)
    pixels_HW3[30:50, 3:20] = (0, 0, 0)
    pixels_HW3[60, 60] = 0
    found = regions(pixels_HW3)
    assert [region.box for region in found] == [(30, 50, 3, 20), (5, 20, 40, 60)]
    assert [region.centre for region in found] == [(11.5, 40.0), (50.0, 12.5)]
    assert regions(np.full((64, 64, 3), 255, np.uint8)) == []


def test_oklab_is_that_of_its_author() -> None:
    """Reference values of the definition: white, red, green, blue of sRGB."""
    rgb_N3 = np.array([[255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    expected = [[1, 0, 0], [0.62796, 0.22486, 0.12585], [0.86644, -0.23389, 0.17950], [0.45201, -0.03246, -0.31153]]
    assert np.allclose(oklab(rgb_N3), expected, atol=2e-4)


def test_gray_has_no_name() -> None:
    assert colour_name(np.full((50, 3), 128, np.uint8)) is None
    assert colour_name(np.zeros((0, 3), np.uint8)) is None


@pytest.mark.parametrize(
    ("first", "said"), [((10, 30), "left of"), ((50, 30), "right of"), ((30, 5), "above"), ((30, 60), "below")]
)
def test_relation_is_by_the_farther_axis(first: tuple[float, float], said: str) -> None:
    assert relation(SeenThing("kite", "red", first), SeenThing("apple", "red", (30, 31))) == said


def seen(*things: tuple[str | None, str | None, tuple[float, float]]) -> Reading:
    return Reading(tuple(SeenThing(*thing) for thing in things))


def test_rates_and_geneval_rows() -> None:
    coloured = scene_of({"kind": "colour", "things": [["apple", "blue"]], "relation": None, "colours": True})
    counted = Scene("count", (Thing("kite", "pink"),) * 2, named_colours=False)
    pair = Scene("pair", (Thing("kite", "pink"), Thing("apple", "red")), "above", named_colours=False)
    bound = Scene("pair", (Thing("kite", "blue"), Thing("apple", "red")), "above")
    one, two = (30.0, 10.0), (30.0, 50.0)
    readings = [
        (coloured, seen(("apple", "blue", one))),
        (coloured, seen(("apple", "red", one))),
        (counted, seen(("kite", "red", one), ("kite", "pink", two))),
        (pair, seen(("kite", None, one), ("apple", None, two))),
        (pair, seen(("kite", None, two), ("apple", None, one))),
        (bound, seen(("kite", "red", one), ("apple", "red", two))),
    ]
    judged = [(scene, judge_scene(scene, reading)) for scene, reading in readings]
    rates = skill_rates(judged)
    assert {name: (rates[name]["right"], rates[name]["n"]) for name in rates if name != "geneval"} == {
        "all": (3, 6),
        "colour": (1, 2),
        "count": (1, 1),
        "pair": (2, 3),
        "single_object": (2, 2),
        "two_object": (3, 3),
        "counting": (1, 1),
        "colors": (1, 2),
        "position": (1, 2),
        "color_attr": (0, 1),
    }
    assert rates["geneval"] == pytest.approx((1 + 1 + 1 + 0.5 + 0.5 + 0) / 6)
    rows = geneval_rows([{"id": str(n), "prompt": f"p{n}", "files": ["a.png"]} for n in range(6)], judged)
    assert {row["tag"] for row in rows} == set(PARTS)
    wrong = next(row for row in rows if row["tag"] == "color_attr")
    assert (wrong["correct"], wrong["reason"]) == (False, "colours red, red")
    assert json.loads(wrong["metadata"])["include"] == [
        {"class": "kite", "count": 1, "color": "blue"},
        {"class": "apple", "count": 1, "color": "red"},
    ]
