"""Weights, statistics and features that are no numbers are refused by name; pictures of odd kinds, reader by reader."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vargpt_lightning.data.images.picture_files import decode_picture
from vargpt_lightning.evaluation.features.feature_sums import FeatureSums, load_moments
from vargpt_lightning.evaluation.features.finite import check_finite, check_rows
from vargpt_lightning.evaluation.features.inception import _check_weights
from vargpt_lightning.evaluation.formats.layouts import Picture
from vargpt_lightning.evaluation.images.clip_score import _open as open_for_clip
from vargpt_lightning.evaluation.systems.files import _open as open_drawing
from vargpt_lightning.utils.errors import UserError


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["mu", "sigma", "sum", "outer"])
def test_statistics_that_are_no_numbers_are_named(tmp_path: Path, name: str, bad: float) -> None:
    path = tmp_path / "real.npz"
    if name in ("mu", "sigma"):
        found = {"mu": np.zeros(3), "sigma": np.eye(3)}
        found[name].flat[1] = bad
        np.savez(path, **found)
    else:
        sums = FeatureSums.empty(3)
        sums.add(torch.randn(5, 3))
        (sums.sum_D if name == "sum" else sums.outer_DD).view(-1)[1] = bad
        sums.save(path)
    with pytest.raises(UserError, match=rf"real\.npz.*'{name}'.*NaN or infinity in 1 of"):
        load_moments(path)


def test_weights_and_features_that_are_no_numbers_are_named(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.tensor([1.0, float("nan")])}, tmp_path / "inception.pth")
    with pytest.raises(UserError, match=r"inception\.pth.*fc\.weight"):
        _check_weights(tmp_path / "inception.pth")
    with pytest.raises(UserError, match=r"b\.png.*layer 64.*1 of 2"):
        check_rows(torch.tensor([[1.0], [float("inf")]]), ["a.png", "b.png"], "inception, layer 64")
    check_finite("x", {"count": np.int64(3), "half": torch.ones(2).half(), "about": np.array("{}")})


def odd_pictures() -> dict[str, bytes]:
    """16 bits grey, half transparent, turned by EXIF: 8 x 4 pixels each."""
    grey = Image.fromarray(np.linspace(0, 65535, 32).reshape(4, 8).astype(np.uint16))
    clear = Image.new("RGBA", (8, 4), (200, 0, 0, 0))
    turned = Image.fromarray(np.arange(96, dtype=np.uint8).reshape(4, 8, 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    found = {}
    for name, picture, options in (("16", grey, {}), ("clear", clear, {}), ("turned", turned, {"exif": exif})):
        content = io.BytesIO()
        picture.save(content, "PNG", **options)
        found[name] = content.getvalue()
    return found


def test_clip_and_drawings_read_as_training_does(tmp_path: Path) -> None:
    for name, content in odd_pictures().items():
        (tmp_path / f"{name}.png").write_bytes(content)
        expected = decode_picture(content)
        for read in (open_for_clip(tmp_path / f"{name}.png", False), open_drawing(tmp_path / f"{name}.png")):
            assert read is not None and read.size == expected.size and read.tobytes() == expected.tobytes(), name
    pixel = {name: decode_picture(content).getpixel((0, 0)) for name, content in odd_pictures().items()}
    assert pixel["clear"] == (255, 255, 255) and decode_picture(odd_pictures()["turned"]).size == (4, 8)
    assert decode_picture(odd_pictures()["16"]).getpixel((7, 3)) == (255, 255, 255)
    middle = decode_picture(odd_pictures()["16"]).getpixel((0, 2))
    assert middle[0] == pytest.approx(255 * 16 / 31, abs=1)


def test_benchmarks_read_as_the_references_do() -> None:
    """Upright, transparency dropped: the numbers are compared with theirs."""
    found = {name: Picture(data=content, name=name).open() for name, content in odd_pictures().items()}
    assert found["clear"].getpixel((0, 0)) == (200, 0, 0) and found["turned"].size == (4, 8)
    plain = Image.open(io.BytesIO(odd_pictures()["16"])).convert("RGB")
    assert found["16"].tobytes() == plain.tobytes()


def test_fid_reads_as_torch_fidelity_does() -> None:
    """Pillow's own conversion and nothing else: not turned, transparency dropped."""
    from vargpt_lightning.evaluation.features.inception import as_array

    for content in odd_pictures().values():
        picture = Image.open(io.BytesIO(content))
        assert np.array_equal(as_array(picture), np.asarray(picture.convert("RGB")))
    assert as_array(Image.open(io.BytesIO(odd_pictures()["turned"]))).shape == (4, 8, 3)
