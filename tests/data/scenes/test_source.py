"""Nothing held out is in any training record, and no picture is in two splits."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vargpt_lightning.data.corpora import Scenes
from vargpt_lightning.data.scenes.compose import SceneCounts
from vargpt_lightning.data.scenes.layouts import LENGTH
from vargpt_lightning.data.scenes.scene import Scene, Thing, draw_scene, layouts
from vargpt_lightning.data.scenes.shapes import BY_NAME, COLOURS
from vargpt_lightning.data.scenes.source import CORPORA, EDITS, SceneSettings, build_scenes
from vargpt_lightning.data.scenes.wording import NUMBERS, announced_phrase, placed_phrase, scene_phrase
from vargpt_lightning.data.shards.dataset import ShardDataset
from vargpt_lightning.data.shards.records import Record
from vargpt_lightning.evaluation.composition.colour_names import colour_name
from vargpt_lightning.evaluation.composition.objects import regions
from vargpt_lightning.utils.errors import UserError

FEW = SceneCounts(colour=1, count=2, pair=1, placings=2)


@pytest.fixture(scope="module")
def settings() -> SceneSettings:
    return SceneSettings(train=FEW, seen=FEW, unseen=FEW, conversations=150)


@pytest.fixture(scope="module")
def folder(settings: SceneSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_scenes(settings, tmp_path_factory.mktemp("scenes"))


def corpus(folder: Path, split: str, name: str) -> Iterator[Record]:
    path = folder / f"{split}-{name}"
    return iter(ShardDataset(path)) if path.is_dir() else iter(())


def spoken(text: str) -> tuple[set[str], set[str], int | None]:
    """The shapes, the colours and the number above one that a text names."""
    words = " " + "".join(c if c.isalnum() or c == "-" else " " for c in text.lower()) + " "
    shapes = {
        shape.name
        for shape in BY_NAME.values()
        if any(f" {each.lower()} " in words for each in (shape.name, shape.plural))
    }
    number = next((n for n, word in enumerate(NUMBERS) if n > 1 and f" {word} " in words), None)
    return shapes, {colour for colour in COLOURS if f" {colour} " in words}, number


def test_no_text_of_training_names_a_held_out_combination(settings: SceneSettings, folder: Path) -> None:
    """Of one thing its colour and count; of two, them together. Requests are read as a person would read them."""
    held, read = settings.cells, 0
    for name in ("scene_drawings", "conversations"):
        for record in corpus(folder, "train", name):
            for turn in record.turns:
                shapes, colours, number = spoken(turn.text)
                if len(shapes) == 1:
                    (shape,) = shapes
                    assert not any(held.colour(shape, colour) for colour in colours), turn.text
                    assert number is None or not held.count(shape, number), turn.text
                elif len(shapes) == 2:
                    assert not held.pair(*shapes), turn.text
                read += bool(shapes)
    assert read > 1000


def test_no_picture_of_training_shows_a_held_out_combination(settings: SceneSettings, folder: Path) -> None:
    held = settings.cells
    for name in CORPORA:
        for record in corpus(folder, "train", name):
            if "scene" in record.meta:
                things = record.meta["scene"]["things"]
                assert not any(held.colour(*thing) for thing in things)
                shapes = {shape for shape, _ in things}
                assert len(shapes) == 2 or not held.count(things[0][0], len(things))
                assert len(shapes) == 1 or not held.pair(*shapes)


def test_every_held_out_combination_is_tested(settings: SceneSettings, folder: Path) -> None:
    found: dict[str, set[tuple[object, ...]]] = {"colour": set(), "count": set(), "pair": set()}
    for record in corpus(folder, "test", "scene_drawings"):
        scene = record.meta["scene"]
        (first, *others), kind = [tuple(thing) for thing in scene["things"]], scene["kind"]
        key = {"colour": first, "count": (first[0], len(others) + 1)}.get(kind)
        found[kind].add(key or tuple(sorted((first[0], others[0][0]))))
    held = settings.cells
    assert found == {"colour": held.colours, "count": held.counts, "pair": held.pairs}


def test_no_picture_is_in_two_splits_or_twice_in_one(folder: Path) -> None:
    keys = [
        part.key
        for split in ("train", "val", "test")
        for record in corpus(folder, split, "scene_pictures")
        for part in record.pictures()
    ]
    assert len(set(keys)) == len(keys) > 2000


def test_pictures_show_what_their_records_say(folder: Path) -> None:
    for number, record in enumerate(corpus(folder, "train", "scene_pictures")):
        if number % 40 == 0:
            pixels_HW3 = np.asarray(Image.open(io.BytesIO(record.pictures()[0].data or b"")))
            found = regions(pixels_HW3)
            things = record.meta["scene"]["things"]
            assert pixels_HW3.shape == (64, 64, 3)
            assert sorted(str(colour_name(pixels_HW3[each.mask_HW])) for each in found) == sorted(c for _, c in things)


def test_the_same_settings_make_the_same_data(settings: SceneSettings, folder: Path, tmp_path: Path) -> None:
    again = build_scenes(settings, tmp_path)
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        assert (again / file.relative_to(folder)).read_bytes() == file.read_bytes(), file


def test_wording() -> None:
    kite, apple = Thing("kite", "pink"), Thing("apple", "green")
    assert scene_phrase(Scene("colour", (apple,))) == "a green apple"
    assert scene_phrase(Scene("colour", (Thing("apple", "orange"),))) == "an orange apple"
    assert scene_phrase(Scene("count", (apple,) * 3)) == "three green apples"
    assert scene_phrase(Scene("count", (kite,) * 2, named_colours=False)) == "two kites"
    pair = Scene("pair", (kite, apple), "left of", named_colours=False)
    assert scene_phrase(pair) == "a kite left of an apple"
    assert scene_phrase(pair, way=1, turned=True) == "an apple to the right of a kite"
    assert scene_phrase(Scene("pair", (kite, apple), "above")) == "a pink kite above a green apple"


@pytest.mark.parametrize("kind", ["colour", "count 2", "count 3", "count 4", "left of", "above"])
def test_words_tell_the_pictures_of_a_scene_apart(kind: str) -> None:
    kite, apple = Thing("kite", "pink"), Thing("apple", "green")
    scene = {
        "colour": Scene("colour", (kite,)),
        "left of": Scene("pair", (kite, apple), "left of"),
        "above": Scene("pair", (kite, apple), "above"),
    }.get(kind) or Scene("count", (kite,) * int(kind[-1]))
    every = layouts(scene)
    assert len({placed_phrase(scene, layout) for layout in every}) == len(every) >= 3
    assert len({draw_scene(scene, layout, 64).sha for layout in every}) == len(every)


def test_an_answer_says_colour_arrangement_and_place() -> None:
    kite, apple = Thing("kite", "pink"), Thing("apple", "orange")
    single, several = Scene("colour", (apple,)), Scene("count", (kite,) * 3, named_colours=False)
    assert placed_phrase(single, layouts(single)[1]) == "an orange apple at the top"
    assert placed_phrase(single, layouts(single)[4], named_colours=False) == "an apple in the middle"
    assert placed_phrase(several, layouts(several)[0]) == "three pink kites with one above the others"
    pair = Scene("pair", (kite, apple), "above", named_colours=False)
    words = "a pink kite at the top and an orange apple at the bottom, on the left"
    assert placed_phrase(pair, layouts(pair)[0]) == words
    words = "an apple at the bottom and a kite at the top, in the middle"
    assert placed_phrase(pair, layouts(pair)[1], named_colours=False, turned=True) == words


def test_answers_name_a_thing_in_the_same_words_whatever_the_scene() -> None:
    kite, apple = Thing("kite", "pink"), Thing("apple", "orange")
    single, several = Scene("colour", (kite,)), Scene("count", (kite,) * 3, named_colours=False)
    assert announced_phrase(single, layouts(single)[1]) == "a pink kite, at the top"
    assert announced_phrase(several, layouts(several)[0]) == "a pink kite, three times, with one above the others"
    pair = Scene("pair", (kite, apple), "left of", named_colours=False)
    words = "a pink kite on the left and an orange apple on the right, at the top"
    assert announced_phrase(pair, layouts(pair)[0]) == words


def test_plans_say_without_a_picture_what_answers_announce(folder: Path) -> None:
    plans, drawings = (list(corpus(folder, "train", name)) for name in ("scene_plans", "scene_drawings"))
    assert len(plans) == len(drawings) > 1000
    for plan, drawing in zip(plans, drawings, strict=True):
        assert not plan.pictures() and plan.meta["scene"] == drawing.meta["scene"]
        said, announced = (record.turns[1].text.casefold() for record in (plan, drawing))
        assert said.removesuffix(".") in announced.replace("\n", " "), (said, announced)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_things_stand_on_the_grid_and_apart(count: int) -> None:
    for layout in layouts(Scene("count", (Thing("square", "red"),) * count)):
        picture = draw_scene(Scene("count", (Thing("square", "red"),) * count), layout, 64)
        assert len(regions(picture.pixels_HWC)) == count
        corners = [part - LENGTH // 2 for centre in layout.centres for part in centre]
        assert all(corner % 8 == 0 and 0 <= corner <= 64 - LENGTH for corner in corners)


def test_a_combination_has_as_many_pictures_as_there_are(tmp_path: Path) -> None:
    many = SceneCounts(colour=30, count=1, pair=1, placings=1)
    folder = build_scenes(SceneSettings(train=many, seen=FEW, unseen=FEW, conversations=1, shapes=4), tmp_path)
    cells = [record.meta["cell"] for record in corpus(folder, "train", "scene_pictures")]
    singles = [cell for cell in cells if cell.split(", ")[-1] in COLOURS]
    assert {singles.count(cell) for cell in singles} == {8}, "9 layouts, one of them in val"


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(UserError, match=r"scenes picture_size: 16; expected at least 32 pixels"):
        SceneSettings(picture_size=16)
    with pytest.raises(UserError, match=r"scenes held_out: 0.6; expected a share from 0 to 0.5"):
        SceneSettings(held_out=0.6)


def test_single_pictures_of_names_that_were_not_trained_are_not_asked_to_be_drawn(tmp_path: Path) -> None:
    corpora = Scenes(vocabulary=400, cache=str(tmp_path), scene_variants=1, scene_conversations=2)
    assert set(corpora.open("train")) == set(corpora.names) - {EDITS}, "edits have to be asked for"
    assert set(corpora.open("test")) == {"questions", "scene_drawings", "scene_questions", "scene_pictures"}
