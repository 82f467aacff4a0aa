"""Every kind of picture file comes out as RGB that shows what it should; what must not be opened is not."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from tests.data import nasty_pictures as nasty
from vargpt_lightning.data.images.picture_files import (
    PictureError,
    TooManyPixelsError,
    bounded,
    decode_picture,
    picture_size,
)
from vargpt_lightning.data.images.pictures import PictureReader

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def sides(data: bytes) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The colours in the middle of the left and of the right half."""
    image = decode_picture(data)
    assert image.mode == "RGB" and picture_size(data) == image.size
    found = [image.getpixel((image.width * part // 4, image.height // 2)) for part in (1, 3)]
    return found[0], found[1]


@pytest.mark.parametrize(
    ("data", "left", "right"),
    [
        (nasty.cmyk(), RED, BLUE),
        (nasty.animated(), RED, BLUE),
        (nasty.animated("PNG"), RED, BLUE),
        (nasty.animated("WEBP"), RED, BLUE),
        (nasty.palette_with_transparency(), RED, WHITE),
        (nasty.turned(), RED, BLUE),
        (nasty.turned("WEBP"), RED, BLUE),
        (nasty.broken_exif(), RED, BLUE),
        (nasty.saved(nasty.halves().convert("1")), (0, 0, 0), (0, 0, 0)),
        (nasty.saved(nasty.halves(), "BMP"), RED, BLUE),
        (nasty.saved(nasty.halves(), "TIFF"), RED, BLUE),
        (nasty.sixteen_bits(), (32, 32, 32), (191, 191, 191)),
        (nasty.sixteen_bits("TIFF"), (32, 32, 32), (191, 191, 191)),
        (nasty.sixteen_bits_clear(), (32, 32, 32), WHITE),
        (nasty.fractions(), (32, 32, 32), (191, 191, 191)),
    ],
    ids=[
        "cmyk",
        "gif",
        "apng",
        "webp",
        "palette",
        "exif",
        "exif-webp",
        "exif-broken",
        "bit",
        "bmp",
        "tiff",
        "16",
        "16-tiff",
        "16-clear",
        "fractions",
    ],
)
def test_what_a_file_shows(data: bytes, left: tuple[int, ...], right: tuple[int, ...]) -> None:
    found = sides(data)
    # JPEG's colours are those of its printing inks, and not exact
    assert found[0] == pytest.approx(left, abs=6) and found[1] == pytest.approx(right, abs=6)


def test_transparency_of_a_single_colour_is_white() -> None:
    for mode, clear in (("RGB", (0, 0, 255)), ("L", 29)):
        data = nasty.saved(nasty.halves().convert(mode), transparency=clear)
        assert sides(data)[1] == WHITE and sides(data)[0] != WHITE


def test_a_turned_picture_has_its_sides_exchanged() -> None:
    assert picture_size(nasty.turned()) == (16, 32) == decode_picture(nasty.turned()).size


@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize("data", [nasty.one_pixel(), nasty.a_line()], ids=["pixel", "line"])
def test_very_small_and_very_long(data: bytes, fit: str) -> None:
    pixels_CHW = PictureReader(8, fit=fit).read(data)  # type: ignore[arg-type]
    assert pixels_CHW.shape == (3, 8, 8) and pixels_CHW[0].min() > 0.9
    with Image.open(io.BytesIO(data)) as image:
        assert max(bounded(image, 8).size) <= 2048


def test_a_bomb_is_refused_before_it_goes_off() -> None:
    data = nasty.bomb(12_000)
    with pytest.raises(
        TooManyPixelsError, match=r"b\.png: 12000 x 12000 pixels in \d+ bytes; expected at most 100,000"
    ):
        decode_picture(data, "b.png")
    with pytest.raises(TooManyPixelsError, match=r"16 x 16 pixels in .* at most 255$"):
        decode_picture(nasty.saved(nasty.halves()), "b.png", 255)
    assert decode_picture(nasty.saved(nasty.halves()), "b.png", 256).size == (16, 16)


def test_the_limit_may_be_above_pillows_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert decode_picture(nasty.saved(nasty.halves())).size == (16, 16)
    assert Image.MAX_IMAGE_PIXELS == 10


def test_a_bomb_of_text_is_no_picture() -> None:
    with pytest.raises(PictureError, match="no picture"):
        decode_picture(nasty.text_bomb())


def test_postscript_is_not_run() -> None:
    with pytest.raises(PictureError, match="no picture"):
        decode_picture(nasty.postscript())
    assert picture_size(nasty.postscript()) is None


def test_whatever_a_plug_in_raises_is_a_bad_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise IndexError("out of range")

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(PictureError, match=r"a\.png: 4 bytes that are no picture \(out of range\)"):
        decode_picture(b"data", "a.png")
