"""Convolutions that are computed in another way than they are written down."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vargpt_lightning.models.tokenizer import winograd
from vargpt_lightning.models.tokenizer.convolutions import Upsample, group_norm
from vargpt_lightning.models.tokenizer.image_tokenizer import ImageTokenizer
from vargpt_lightning.models.tokenizer.winograd import Conv3x3, winograd_convolution


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_upsampling_in_four_phases_equals_a_convolution_of_repeated_pixels(memory_format: torch.memory_format) -> None:
    torch.manual_seed(0)
    layer = Upsample(6).double().to(memory_format=memory_format)
    x_BCHW = torch.randn(2, 6, 5, 4, dtype=torch.double).to(memory_format=memory_format).requires_grad_()
    leaves = (x_BCHW, *layer.parameters())
    found = layer(x_BCHW)
    assert found.is_contiguous(memory_format=memory_format)
    expected = layer.conv(F.interpolate(x_BCHW, scale_factor=2.0, mode="nearest"))
    torch.testing.assert_close(found, expected)
    grad = torch.randn_like(expected)
    for one, two in zip(
        torch.autograd.grad(found, leaves, grad), torch.autograd.grad(expected, leaves, grad), strict=True
    ):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("shape", [(2, 64, 66), (1, 66, 64), (1, 6, 768)])
@pytest.mark.parametrize("bias", [True, False])
def test_winograds_convolution_is_a_convolution(shape: tuple[int, int, int], bias: bool) -> None:
    torch.manual_seed(0)
    batch, height, width = shape
    x_BCHW, weight_OC33 = torch.randn(batch, 8, height, width).double(), torch.randn(5, 8, 3, 3).double()
    bias_O = torch.randn(5).double() if bias else None
    expected = F.conv2d(x_BCHW, weight_OC33, bias_O, padding=1)
    for given in (x_BCHW, x_BCHW.contiguous(memory_format=torch.channels_last)):
        torch.testing.assert_close(winograd_convolution(given, weight_OC33, bias_O), expected)
    single = winograd_convolution(x_BCHW.float(), weight_OC33.float(), None if bias_O is None else bias_O.float())
    assert (single - expected).abs().max() < 1e-6 * expected.abs().max()


def test_winograd_serves_large_maps_without_a_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    monkeypatch.setattr(winograd, "winograd_convolution", lambda x, *rest: used.append(x) or x)
    layer, x_BCHW = Conv3x3(128, 128), torch.randn(1, 128, 64, 64)
    layer(x_BCHW)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        layer(x_BCHW)
    assert not used
    with torch.no_grad():
        layer(x_BCHW)
        layer(x_BCHW[..., :-1])
        layer(x_BCHW[..., :32])
    assert len(used) == 1


def test_group_norm_of_large_channels_last_maps_is_exact() -> None:
    torch.manual_seed(0)
    layer = group_norm(64)
    torch.nn.init.normal_(layer.weight)
    torch.nn.init.normal_(layer.bias)
    x_BCHW = (torch.randn(2, 64, 128, 128) + torch.randn(1, 64, 1, 1)).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        found = layer(x_BCHW)
    expected = F.group_norm(x_BCHW.double(), 32, layer.weight.double(), layer.bias.double(), layer.eps)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert (found - expected).abs().max() < 5e-7 * expected.abs().max()
    torch.testing.assert_close(layer(x_BCHW), found, rtol=1e-4, atol=1e-4)  # torch's own, which rounds more


def test_large_pictures_are_encoded_and_drawn_as_with_gradients() -> None:
    torch.manual_seed(0)
    model = ImageTokenizer(scales=(1, 2, 64), channels=128, channel_multipliers=(1, 1), residual_blocks=1, code_size=4)
    model.eval()
    x_B3HW = torch.rand(2, 3, 128, 128) * 2 - 1
    with torch.no_grad():
        f_BCHW = model.features(x_B3HW)
        picture_B3HW = model.decode(f_BCHW)
    expected = model.features(x_B3HW)
    torch.testing.assert_close(f_BCHW, expected.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(picture_B3HW, model.decode(f_BCHW).detach(), rtol=1e-5, atol=1e-5)
    assert torch.equal(model.quantize_features(f_BCHW), model.quantize_features(expected))
