from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.conftest import png
from vargpt_lightning.data.images.pictures import PictureError, PictureReader, decode_picture, make_square, vary
from vargpt_lightning.utils.errors import UserError


def half_red(width: int = 32, height: int = 32) -> Image.Image:
    image = Image.new("RGB", (width, height), "white")
    image.paste((255, 0, 0), (0, 0, width // 2, height))
    return image


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_kinds_of_files(kind: str) -> None:
    assert decode_picture(encoded(half_red(), kind)).getpixel((20, 20)) == pytest.approx((255, 255, 255), abs=3)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_becomes_white(mode: str) -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0)).convert(mode)
    if mode == "P":
        image.info["transparency"] = 0
    assert decode_picture(encoded(image)).getpixel((4, 4)) == (255, 255, 255)


@pytest.mark.parametrize("data", [None, b"", b"not a picture", png()[:50]])
def test_a_picture_that_is_none(data: bytes | None) -> None:
    with pytest.raises(PictureError, match=r"photo\.jpg: .*(no bytes|no picture)"):
        decode_picture(data, "photo.jpg")


def test_a_bad_picture_is_the_users_mistake_too() -> None:
    assert issubclass(PictureError, UserError)


def test_square_by_crop_and_by_padding() -> None:
    wide = half_red(40, 20)
    assert make_square(wide, 20, "crop").getpixel((0, 10)) == (255, 0, 0)
    padded = make_square(wide, 40, "pad")
    assert padded.getpixel((0, 0)) == (255, 255, 255) and padded.getpixel((0, 20)) == (255, 0, 0)


def test_shrinking_averages() -> None:
    stripes = np.zeros((8, 8, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.asarray(make_square(Image.fromarray(stripes), 4)).mean() == pytest.approx(127.5, abs=1)


def test_values_are_scaled_and_normalised() -> None:
    pixels = PictureReader(4).read(encoded(half_red()))
    assert pixels.shape == (3, 4, 4) and pixels.dtype == torch.float32
    assert pixels[:, 0, 0].tolist() == [1.0, -1.0, -1.0] and pixels[:, 0, 3].tolist() == [1.0, 1.0, 1.0]
    other = PictureReader(4, mean=(0.0, 0.5, 1.0), std=(2.0, 1.0, 0.5)).read(encoded(half_red()))
    assert other[:, 0, 3].tolist() == [0.5, 0.5, 0.0]


def test_variants_are_mild_and_follow_from_key_and_number() -> None:
    image = half_red(64, 64)
    assert vary(image, "k", 0) is image
    one = np.asarray(vary(image, "k", 1)).astype(float)
    assert (one == np.asarray(vary(image, "k", 1))).all()
    assert (one != np.asarray(vary(image, "other", 1))).any() and (one != np.asarray(vary(image, "k", 3))).any()
    # an odd variant is flipped, the red comes to the right
    assert one[20:44, 8:20, 1].mean() > 200 > 50 > one[20:44, 44:56, 1].mean()
    two = np.asarray(vary(image, "k", 2)).astype(float)
    assert two[20:44, 8:20, 1].mean() < 50 < 200 < two[20:44, 44:56, 1].mean()
    unflipped = np.asarray(vary(image, "k", 1, flip=False)).astype(float)
    assert unflipped[20:44, 44:56, 1].mean() > 200


def test_variants_keep_a_centred_picture_in_its_place() -> None:
    image = Image.new("RGB", (64, 64), "white")
    image.paste((0, 0, 0), (24, 24, 40, 40))
    for variant in range(1, 9):
        dark_HW = np.asarray(vary(image, "k", variant))[..., 0] < 128
        rows, columns = dark_HW.nonzero()
        assert abs(rows.mean() - 31.5) < 5 and abs(columns.mean() - 31.5) < 5
        assert 0.6 * 256 < dark_HW.sum() < 1.4 * 256


def test_the_reader_gives_variants() -> None:
    reader = PictureReader(16, variants=3)
    data = encoded(half_red(64, 64))
    assert reader.variants_of("k") == 3
    assert reader.read(data, "k", 1).shape == (3, 16, 16)
    assert not torch.equal(reader.read(data, "k", 1), reader.read(data, "k", 0))


@pytest.mark.parametrize(
    ("values", "message"),
    [({"size": 0}, "size 0"), ({"size": 4, "variants": 0}, "variants 0"), ({"size": 4, "fit": "stretch"}, "'stretch'")],
)
def test_bad_readers(values: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        PictureReader(**values)
