"""Sizes of pictures in words."""

from __future__ import annotations

import pytest

from vargpt_lightning.inference.sizes import size_named, size_names
from vargpt_lightning.models.core.config import TokenizerConfig
from vargpt_lightning.utils.errors import UserError

TABLE = TokenizerConfig(kind="bits", scales=(1, 2, 4, 6, 8, 12, 16), sizes=(0.75, 1.333, 0.666, 1.5))


def test_sizes_are_named_by_width_and_height() -> None:
    assert size_names(TABLE) == ["256x256", "320x240", "240x320", "336x224", "224x336"]
    assert [size_named(name, TABLE) for name in size_names(TABLE)] == [0, 1, 2, 3, 4]
    assert [size_named(name, TABLE) for name in ("1:1", "4:3", "3:4", "3/2", " 336 × 224 ")] == [0, 1, 2, 3, 3]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("large", "got 'large', expected one of 256x256, 320x240, 240x320, 336x224, 224x336, or an aspect ratio"),
        ("0x10", "got '0x10', expected one of 256x256"),
        ("512x512", "got '512x512', expected 256x256 for its aspect ratio"),
        ("640x480", "got '640x480', expected 320x240 for its aspect ratio"),
        (
            "7:5",
            "got '7:5', whose aspect ratio is none of this model's; the nearest: 320x240 and 336x224; ",
        ),
        ("2000x1000", "got '2000x1000', whose aspect ratio is none of this model's; the nearest: 336x224; expected"),
        ("1:9", "got '1:9', whose aspect ratio is none of this model's; the nearest: 224x336; expected one of 256x256"),
    ],
)
def test_others_are_refused_with_the_nearest(text: str, told: str) -> None:
    with pytest.raises(UserError) as refused:
        size_named(text, TABLE)
    assert f"size: {told}" in str(refused.value)
