"""Pictures fitted by torch: Pillow's pixels but for a level here and there, and Pillow's own where torch cannot."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from vargpt_lightning.data.images.fast_resize import fit_fast
from vargpt_lightning.data.images.pictures import Fit, LevelReader, PictureReader

MEAN = (0.48, 0.46, 0.41)
SIZES = [(97, 64), (64, 98), (75, 75), (31, 40), (200, 30), (40, 40)]  # width, height: shrunk and enlarged to 40


def levels(width: int, height: int) -> np.ndarray:
    """Noise over waves, with black and white in it."""
    rng = np.random.default_rng(width * height)
    waves = 128 + 160 * np.sin(np.arange(width) / 5)[None, :, None] * np.cos(np.arange(height) / 7)[:, None, None]
    return (waves + rng.normal(0, 30, (height, width, 3))).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("fit", ["crop", "pad", "clip", "llava"])
@pytest.mark.parametrize("size", SIZES)
def test_a_level_differs_by_one_at_most(size: tuple[int, int], fit: Fit) -> None:
    pixels = levels(*size)
    found = fit_fast(pixels, 40, fit, MEAN)
    wanted = PictureReader(40, mean=MEAN, fit=fit).pixels(Image.fromarray(pixels))
    if found is None:
        assert fit in ("crop", "pad") and (min if fit == "crop" else max)(size) % 40 == 0
        return
    apart = np.abs(found.astype(int) - wanted)
    assert found.dtype == np.uint8 and found.shape == (40, 40, 3)
    assert apart.max() <= 1 and apart.mean() < 0.01


def test_it_is_asked_for_and_only_done_where_pictures_are_not_varied() -> None:
    buffer = io.BytesIO()
    Image.fromarray(levels(97, 64)).save(buffer, "JPEG")
    file, exact = buffer.getvalue(), PictureReader(40, variants=3)
    plain, fast = LevelReader(exact), LevelReader(exact, "torch")
    assert np.array_equal(plain.read(file), exact.levels(file))
    assert not np.array_equal(fast.read(file), exact.levels(file))
    assert np.array_equal(fast.read(file, "p", 1), exact.levels(file, "p", 1))
    random_crops = PictureReader(40, fit="var")
    assert np.array_equal(LevelReader(random_crops, "torch").read(file), random_crops.levels(file))
