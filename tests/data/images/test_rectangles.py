"""Pictures fitted to a height and a width."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from vargpt_lightning.data.images.pictures import PictureReader, make_square
from vargpt_lightning.data.images.rectangles import fit_rectangle, larger
from vargpt_lightning.data.images.resize_modes import crop_of
from vargpt_lightning.utils.errors import UserError


def stripes(width: int, height: int) -> Image.Image:
    """Columns that say where they were: red is the column, green the row."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(width)[None] % 256, np.arange(height)[:, None] % 256
    return Image.fromarray(pixels)


def test_a_crop_keeps_the_middle() -> None:
    image = stripes(100, 40)
    cut = np.asarray(fit_rectangle(image, (40, 60), "crop"))
    assert cut.shape == (40, 60, 3) and cut[0, :, 0].tolist() == list(range(20, 80))
    tall = np.asarray(fit_rectangle(stripes(40, 100), (60, 40), "crop"))
    assert tall[:, 0, 1].tolist() == list(range(20, 80))


def test_white_is_added_at_two_sides() -> None:
    padded = np.asarray(fit_rectangle(stripes(40, 40), (40, 60), "pad"))
    assert (
        padded.shape == (40, 60, 3)
        and (padded[:, :10] == 255).all()
        and padded[0, 10:50, 0].tolist() == list(range(40))
    )


def test_a_square_is_fitted_as_squares_are() -> None:
    image = stripes(90, 70)
    for fit in ("crop", "pad"):
        assert fit_rectangle(image, (32, 32), fit).tobytes() == make_square(image, 32, fit).tobytes()


def test_var_cuts_out_of_a_larger_picture() -> None:
    image = stripes(200, 100)
    found = {fit_rectangle(image, (40, 60), "var", crop_of("a", variant)).tobytes() for variant in range(6)}
    again = fit_rectangle(image, (40, 60), "var", crop_of("a", 3))
    assert len(found) == 6 and again.tobytes() in found and again.size == (60, 40)


def test_a_reader_reads_rectangles_and_their_variants() -> None:
    reader = PictureReader((24, 36), variants=3)
    image = stripes(50, 50)
    plain, varied = reader.to_tensor(image, "a"), reader.to_tensor(image, "a", 1)
    assert plain.shape == varied.shape == (3, 24, 36) and not torch.equal(plain, varied)
    assert torch.equal(varied, reader.to_tensor(image, "a", 1))
    assert PictureReader((24, 24)) == PictureReader(24), "a square is one, however it is said"
    assert larger((24, 36), image) == (33, 50) and larger((24, 36), stripes(500, 20)) == (48, 72)
    with pytest.raises(UserError, match=r"fit 'clip' with size .*; expected one of crop, pad, var"):
        PictureReader((24, 36), fit="clip")
