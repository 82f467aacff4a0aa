"""The shapes of scenes keep the rules that they were chosen by."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from vargpt_lightning.data.openmoji.colours import colour_shares
from vargpt_lightning.data.openmoji.pictures import on_white, render, svg_file
from vargpt_lightning.data.scenes.layouts import LENGTH
from vargpt_lightning.data.scenes.shapes import COLOURS, SHAPES, Shape, recoloured, sprite
from vargpt_lightning.evaluation.composition.colour_names import colour_name
from vargpt_lightning.evaluation.composition.objects import regions

SMALLEST = LENGTH


def on_canvas(shape: Shape, colour: str, size: int) -> np.ndarray:
    canvas_HW3 = np.full((64, 64, 3), 255, np.uint8)
    sprite_HW3 = on_white(sprite(shape, colour, size))
    canvas_HW3[3 : 3 + len(sprite_HW3), 3 : 3 + sprite_HW3.shape[1]] = sprite_HW3
    return canvas_HW3


def test_there_are_32_in_eight_colours_by_different_names() -> None:
    assert len({shape.name for shape in SHAPES}) == len(SHAPES) == 32
    assert len(COLOURS) == 8
    words = {word for shape in SHAPES for word in shape.name.lower().split()}
    assert not words & set(COLOURS)
    assert all(len(shape.name.split()) <= 2 for shape in SHAPES)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_a_shape_is_of_one_colour_and_one_piece(shape: Shape) -> None:
    name, share = next(iter(colour_shares(render(svg_file(shape.codepoint), 128)).items()))
    assert (name, share >= 0.85) == (shape.native, True)
    assert len(regions(on_canvas(shape, "red", SMALLEST))) == 1


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_a_colour_is_unmistakable_at_every_size(shape: Shape) -> None:
    for colour in COLOURS:
        for size in (SMALLEST, 40):
            pixels_HW3 = on_canvas(shape, colour, size)
            (region,) = regions(pixels_HW3)
            assert colour_name(pixels_HW3[region.mask_HW]) == colour


def test_no_two_masks_are_alike() -> None:
    masks = {}
    for shape in SHAPES:
        (region,) = regions(on_canvas(shape, "red", SMALLEST))
        top, bottom, left, right = region.box
        square = np.zeros((SMALLEST + 4,) * 2, bool)
        y, x = (len(square) - bottom + top) // 2, (len(square) - right + left) // 2
        square[y : y + bottom - top, x : x + right - left] = region.mask_HW[top:bottom, left:right]
        masks[shape.name] = square
    overlaps = {
        pair: (masks[pair[0]] & masks[pair[1]]).sum() / (masks[pair[0]] | masks[pair[1]]).sum()
        for pair in combinations(masks, 2)
    }
    assert max(overlaps.values()) < 0.85, max(overlaps, key=overlaps.__getitem__)


def test_outlines_stay_and_the_longer_side_is_the_size() -> None:
    apple = SHAPES[0]
    svg = recoloured(apple, "blue")
    assert "#4a90d9" in svg
    assert "#ea5a47" not in svg
    assert svg.count("#000") == svg_file(apple.codepoint).read_text().count("#000")
    for size in (22, 47):
        assert abs(max(sprite(apple, "green", size).shape[:2]) - size) <= 1
