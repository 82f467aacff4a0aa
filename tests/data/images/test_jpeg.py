"""JPEG files decoded without Pillow: the same pixels, and Pillow's word where it must be asked."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.data import nasty_pictures as nasty
from vargpt_lightning.data.images import jpeg as jpeg_files
from vargpt_lightning.data.images.jpeg import decode_jpeg
from vargpt_lightning.data.images.picture_files import PictureError, TooManyPixelsError, decode_picture
from vargpt_lightning.data.images.pictures import Fit, PictureReader

pytest.importorskip("simplejpeg")


def jpeg(width: int, height: int, mode: str = "RGB", **settings: Any) -> bytes:
    """A file of noise over a slope: all that decoders may do in different ways."""
    rng = np.random.default_rng(width * height)
    slope = np.linspace(0, 200, width)[None, :, None] + rng.integers(0, 56, (height, width, 3))
    buffer = io.BytesIO()
    Image.fromarray(slope.astype(np.uint8)).convert(mode).save(buffer, "JPEG", **settings)
    return buffer.getvalue()


EXIF = Image.Exif()
EXIF[0x010E] = "a picture"
PLAIN = {
    "444": jpeg(64, 48, subsampling=0, quality=95),
    "422": jpeg(61, 47, subsampling=1, quality=40),
    "420": jpeg(61, 47, subsampling=2, quality=75),
    "progressive": jpeg(61, 47, progressive=True, quality=60),
    "grey": jpeg(33, 17, "L"),
    "one": jpeg(1, 1),
    "icc": jpeg(20, 20, icc_profile=bytes(300)),
    "exif": jpeg(20, 20, exif=EXIF),
    "restarts": jpeg(64, 64, restart_marker_rows=1),
}


@pytest.mark.parametrize("name", PLAIN)
def test_the_pixels_are_pillows(name: str) -> None:
    found = decode_jpeg(PLAIN[name])
    assert found is not None and found.dtype == np.uint8
    assert np.array_equal(found, np.asarray(decode_picture(PLAIN[name])))


def turned_by_xmp() -> bytes:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF tiff:Orientation="6"/></x:xmpmeta>'
    return jpeg(20, 10, xmp=xmp)


def several() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8), "white")])
    return buffer.getvalue()


WHOLE = PLAIN["420"]
LEFT = {
    "none": None,
    "empty": b"",
    "png": nasty.saved(nasty.halves()),
    "cmyk": nasty.cmyk(),
    "turned": nasty.turned(),
    "turned by xmp": turned_by_xmp(),
    "several": several(),
    "truncated": WHOLE[: len(WHOLE) // 2],
    "only a header": WHOLE[:200],
    "only a start": WHOLE[:3],
    "a hole": WHOLE[:900] + b"\xff\x00\xff\xd9" * 4 + WHOLE[900:],
}


@pytest.mark.parametrize("name", LEFT)
def test_what_is_not_plain_is_left_to_pillow(name: str) -> None:
    assert decode_jpeg(LEFT[name]) is None


@pytest.mark.parametrize("name", LEFT)
def test_reading_gives_pillows_picture_or_its_refusal(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def outcome() -> Any:
        try:
            return PictureReader(8).levels(LEFT[name], "x").tolist()
        except PictureError as error:
            return str(error)

    found = outcome()
    monkeypatch.setattr("vargpt_lightning.data.images.pictures.decode_jpeg", lambda *_: None)
    assert found == outcome()


def test_too_many_pixels_are_not_decoded() -> None:
    assert decode_jpeg(jpeg(20, 20), max_pixels=399) is None
    with pytest.raises(TooManyPixelsError):
        PictureReader(8, max_pixels=399).read(jpeg(20, 20))


@pytest.mark.parametrize("fit", ["pad", "crop", "var", "clip", "llava"])
@pytest.mark.parametrize("size", [(40, 40), (61, 47)])
@pytest.mark.parametrize("variant", [0, 1])
def test_fitted_they_are_the_same(
    fit: Fit, size: tuple[int, int], variant: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = PictureReader(40, fit=fit, variants=2)
    found = reader.levels(jpeg(*size), "x", variant)
    monkeypatch.setattr("vargpt_lightning.data.images.pictures.decode_jpeg", lambda *_: None)
    assert np.array_equal(found, reader.levels(jpeg(*size), "x", variant))


def test_a_pillow_that_decodes_otherwise_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    import simplejpeg

    jpeg_files._decoder_agrees.cache_clear()
    right = simplejpeg.decode_jpeg
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *arguments: right(*arguments) ^ 1)
    assert decode_jpeg(PLAIN["420"]) is None
    jpeg_files._decoder_agrees.cache_clear()
