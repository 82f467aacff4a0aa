"""Convolutions that are computed in another way than they are written down."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vargpt_lightning.models.tokenizer.convolutions import Upsample


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_upsampling_in_four_phases_equals_a_convolution_of_repeated_pixels(memory_format: torch.memory_format) -> None:
    torch.manual_seed(0)
    layer = Upsample(6).double().to(memory_format=memory_format)
    x_BCHW = torch.randn(2, 6, 5, 4, dtype=torch.double).to(memory_format=memory_format).requires_grad_()
    leaves = (x_BCHW, *layer.parameters())
    found = layer(x_BCHW)
    expected = layer.conv(F.interpolate(x_BCHW, scale_factor=2.0, mode="nearest"))
    torch.testing.assert_close(found, expected)
    grad = torch.randn_like(expected)
    for one, two in zip(
        torch.autograd.grad(found, leaves, grad), torch.autograd.grad(expected, leaves, grad), strict=True
    ):
        torch.testing.assert_close(one, two)
