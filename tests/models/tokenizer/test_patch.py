"""Squares of pixels as channels: the same pictures in and out, at a fraction of the places."""

from __future__ import annotations

import torch

from vargpt_lightning.models.core.config import TokenizerConfig
from vargpt_lightning.models.tokenizer.image_tokenizer import ImageTokenizer


def test_pictures_keep_their_size() -> None:
    config = TokenizerConfig(scales=(1, 2, 4), channels=8, channel_multipliers=(1, 2), vocabulary=16, patch=4)
    torch.manual_seed(0)
    tokenizer = ImageTokenizer(
        scales=(1, 2, 4), channels=8, channel_multipliers=(1, 2), residual_blocks=1, code_size=4, vocabulary=16, patch=4
    )
    assert config.picture_size == tokenizer.picture_size == 32
    x_B3HW = torch.rand(2, 3, 32, 32) * 2 - 1
    out = tokenizer(x_B3HW)
    assert out.reconstruction.shape == x_B3HW.shape
    assert tokenizer.encode(x_B3HW).shape == (2, 21)
    assert tuple(tokenizer.encoder.conv_in.weight.shape) == (8, 48, 3, 3)
    assert tuple(tokenizer.decoder.conv_out.weight.shape) == (48, 8, 3, 3)


def test_a_place_of_the_first_convolution_is_one_square() -> None:
    """Only the places around a changed square see the change."""
    tokenizer = ImageTokenizer(
        scales=(1, 2, 4), channels=8, channel_multipliers=(1, 2), residual_blocks=1, code_size=4, vocabulary=16, patch=4
    )
    x_B3HW = torch.zeros(2, 3, 32, 32)
    x_B3HW[1, :, 12:16, 8:12] = 1.0
    h_BCHW = tokenizer.encoder.conv_in(torch.pixel_unshuffle(x_B3HW, 4))
    changed_HW = (h_BCHW[0] != h_BCHW[1]).any(dim=0)
    assert changed_HW.nonzero().amin(dim=0).tolist() == [2, 1]
    assert changed_HW.nonzero().amax(dim=0).tolist() == [4, 3]
