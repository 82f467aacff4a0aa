"""The feature network has its real weights and sees every picture alike, whatever its mode, size or neighbours."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from vargpt_lightning.evaluation.base.files import rgb
from vargpt_lightning.evaluation.features.efficientnet import EfficientNetFeatures, pixels
from vargpt_lightning.utils.errors import UserError


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    import matplotlib

    path = Path(matplotlib.__file__).parent / "mpl-data" / "sample_data" / "grace_hopper.jpg"
    if not path.is_file():
        pytest.skip("this matplotlib has no sample photograph")
    return Image.open(path).convert("RGB")


def test_the_weights_are_imagenets(photograph):
    network = EfficientNetFeatures(size=224)
    features = network([photograph])
    assert features.shape == (1, 1280) and not features.requires_grad
    logits = network.network._fc(features)
    assert logits.argmax().item() == 652  # "military uniform"
    x_13HW = (pixels([photograph.resize((224, 224), Image.Resampling.BICUBIC)]) - 127) / 128
    torch.testing.assert_close(logits, network.network(x_13HW), rtol=1e-4, atol=1e-4)


def test_features_do_not_depend_on_the_batch(photograph):
    mirrored = photograph.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    small, large = EfficientNetFeatures(size=64, batch_size=1), EfficientNetFeatures(size=64, batch_size=8)
    pictures = [photograph, mirrored, photograph]
    torch.testing.assert_close(small(pictures), large(pictures), rtol=1e-4, atol=1e-4)
    assert large([]).shape == (0, 1280)


def test_what_is_transparent_is_white():
    clear = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    clear.putpixel((1, 0), (0, 0, 255, 255))
    assert list(rgb(clear).getdata()) == [(255, 255, 255), (0, 0, 255)]
    assert pixels([clear]).shape == (1, 3, 1, 2)


def test_a_size_that_is_too_small_is_refused():
    with pytest.raises(UserError, match="at least 32"):
        EfficientNetFeatures(size=16)
