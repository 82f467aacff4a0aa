"""Pictures that nobody drew are what their names say."""

from __future__ import annotations

import math

import pytest
from PIL import Image

from vargpt_lightning.evaluation.run.baselines import blur, squared_error


def test_blur_is_gaussian_of_that_width():
    dot = Image.new("RGB", (33, 33))
    dot.putpixel((16, 16), (255, 255, 255))
    assert blur(dot, 2.0).getpixel((16, 16))[0] == round(255 / (2 * math.pi * 4))
    assert blur(Image.new("RGB", (6, 6), "red"), 2.0).getpixel((0, 0)) == (255, 0, 0)


def test_squared_error_is_a_sum_with_its_count():
    black, grey = Image.new("RGB", (4, 4)), Image.new("RGB", (4, 4), (51, 51, 51))
    total, count = squared_error([black, black], [grey, black])
    assert (total, count) == (pytest.approx(48 * 0.04, rel=1e-5), 96)
