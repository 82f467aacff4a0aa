from __future__ import annotations

import numpy as np
import pytest

from vargpt_lightning.data.openmoji.picture_families import distances, families, near_pairs


def square(left: int, colour: int = 0, side: int = 64) -> np.ndarray:
    """A white picture with a bar of two columns of 32."""
    picture = np.full((side, side, 3), 255, np.uint8)
    factor = side // 32
    picture[:, left * factor : (left + 2) * factor] = colour
    return picture


def test_the_distance_is_the_root_mean_square_of_pictures_or_their_mirrors() -> None:
    white, bar, mirrored = np.full((64, 64, 3), 255, np.uint8), square(3), square(27)
    apart = distances([white, bar, mirrored])
    assert apart[0, 1] == pytest.approx(np.sqrt(2 / 32))
    assert apart[1, 2] == 0 and (apart.diagonal() == 0).all() and (apart == apart.T).all()


def test_the_size_of_the_pictures_is_no_difference() -> None:
    assert distances([square(3, side=32), square(3, side=128)]).max() == 0


def test_families_are_chains_and_go_by_their_first() -> None:
    shades = [square(3, colour) for colour in (0, 200, 60, 30, 90)]
    assert near_pairs(shades) == [(0, 2), (0, 3), (2, 3), (2, 4), (3, 4)]
    assert families(shades, ["a", "b", "c", "d", "e"]) == [0, 1, 0, 0, 0]


def test_names_that_differ_in_person_and_direction_alone_are_of_one_family() -> None:
    names = ["man judge", "woman judge", "person kneeling facing right", "judge", "woman kneeling", "man", "woman"]
    pictures = [square(2 * place) for place in range(len(names))]
    assert families(pictures, names) == [0, 0, 2, 0, 2, 5, 6]


def test_no_pictures_have_no_families() -> None:
    assert families([], []) == []
