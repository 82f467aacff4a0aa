from __future__ import annotations

import io
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from vargpt_lightning.data.openmoji import pictures as openmoji
from vargpt_lightning.data.openmoji.colours import PALETTE, colour_shares
from vargpt_lightning.data.openmoji.picture_families import distances
from vargpt_lightning.data.openmoji.pictures import Emoji, load_emoji
from vargpt_lightning.utils.errors import UserError


def named(emoji: list[Emoji], name: str) -> Emoji:
    return next(each for each in emoji if each.name == name)


def filled(*areas: tuple[str, int]) -> np.ndarray:
    """A transparent picture with so many pixels of each colour."""
    picture = np.zeros((40, 40, 4), np.uint8)
    flat, at = picture.reshape(-1, 4), 0
    for code, count in areas:
        flat[at : at + count] = [int(code[i : i + 2], 16) for i in (1, 3, 5)] + [255]
        at += count
    return picture


def test_what_the_packages_hold() -> None:
    entries = openmoji._entries()
    assert len(entries) == 1898
    assert len(openmoji.known_categories()) == 9
    assert len({entry.subcategory for entry in entries}) == 99


def test_the_default_pictures(emoji: list[Emoji]) -> None:
    assert len(emoji) == 288
    assert Counter(each.split for each in emoji) == {"train": 235, "val": 29, "test": 24}
    assert len({each.sha for each in emoji}) == 288
    shamrock = named(emoji, "shamrock")
    assert (shamrock.codepoint, shamrock.category, shamrock.subcategory) == (
        "2618",
        "Animals & Nature",
        "plant-other",
    )
    assert Image.open(io.BytesIO(shamrock.png)).size == (128, 128)


def test_pictures_lie_on_white(emoji: list[Emoji]) -> None:
    pixels = np.asarray(Image.open(io.BytesIO(named(emoji, "shamrock").png)))
    assert (pixels[0, 0] == 255).all() and pixels.shape == (128, 128, 3)


@pytest.mark.parametrize(
    ("name", "colour"),
    [
        ("shamrock", "green"),
        ("pig", "pink"),
        ("panda", "white"),
        ("egg", "white"),
        ("banana", "yellow"),
        ("ox", "brown"),
    ],
)
def test_main_colours(emoji: list[Emoji], name: str, colour: str) -> None:
    assert named(emoji, name).main_colour == colour


def test_colours_are_shares_of_basic_names(emoji: list[Emoji]) -> None:
    for each in emoji:
        assert sum(each.colours.values()) == pytest.approx(1)
        assert set(each.colours) <= set(PALETTE.values()) - {"outline"}
        assert list(each.colours.values()) == sorted(each.colours.values(), reverse=True)


def test_the_outline_counts_only_where_it_is_all_there_is() -> None:
    assert colour_shares(filled(("#000000", 50), ("#ffffff", 50))) == {"white": 1.0}
    assert colour_shares(filled(("#000000", 90), ("#ffffff", 10))) == {"black": 0.9, "white": 0.1}
    assert colour_shares(filled(("#3f3f3f", 10), ("#b1cc33", 30))) == {"green": 0.75, "black": 0.25}


def test_blended_and_transparent_pixels_do_not_count() -> None:
    blended = filled(("#fcea2b", 30), ("#7e7515", 30))
    assert colour_shares(blended) == {"yellow": 1.0}
    blended[..., 3] = 100
    assert colour_shares(blended) == {}


def test_equal_pictures_become_one_with_aliases() -> None:
    flags = load_emoji(["Flags"])
    assert named(flags, "Norway").aliases == ("Svalbard & Jan Mayen",)
    assert "Svalbard & Jan Mayen" not in {each.name for each in flags}


def test_the_split_does_not_depend_on_the_size(emoji: list[Emoji], monkeypatch: pytest.MonkeyPatch) -> None:
    some = openmoji._entries()[:1] + tuple(entry for entry in openmoji._entries() if entry.svg.stem == "2618")
    monkeypatch.setattr(openmoji, "_entries", lambda: some)
    (small,) = load_emoji(["Animals & Nature"], size=32)
    assert (small.sha, small.split) == (named(emoji, "shamrock").sha, named(emoji, "shamrock").split)
    assert Image.open(io.BytesIO(small.png)).size == (32, 32)


@pytest.mark.parametrize(("categories", "message"), [(["Animal"], "'Animal' is not one of Activities"), ([], "empty")])
def test_bad_categories(categories: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_emoji(categories)


def test_nearly_the_same_pictures_fall_into_one_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where OpenMoji repeats itself: moons and circles, clocks, people who run and face right."""
    kinds = {"sky & weather", "geometric", "time", "person-activity"}
    some = tuple(entry for entry in openmoji._entries() if entry.subcategory in kinds)
    monkeypatch.setattr(openmoji, "_entries", lambda: some)
    drawn = load_emoji(None)
    held_out = np.array([each.split != "train" for each in drawn])
    pictures = [Image.open(io.BytesIO(each.png)).resize((32, 32)) for each in drawn]
    small = np.stack([np.asarray(picture, np.float64) for picture in pictures]) / 255
    for seen in (small, small[:, :, ::-1]):  # training mirrors pictures
        for picture in small[held_out]:
            assert np.sqrt(((seen[~held_out] - picture) ** 2).mean((1, 2, 3))).min() > 0.05
    runners = {each.split for each in drawn if "running" in each.name}
    assert 40 < held_out.sum() < len(drawn) / 2 and len(runners) == 1
    assert named(drawn, "yellow circle").split == named(drawn, "full moon").split


def test_the_default_pictures_that_are_held_out_are_far_from_the_others(emoji: list[Emoji]) -> None:
    held_out = np.array([each.split != "train" for each in emoji])
    apart = distances([np.asarray(Image.open(io.BytesIO(each.png))) for each in emoji])
    assert apart[held_out][:, ~held_out].min() > 0.1
