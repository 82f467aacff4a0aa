"""Tests of the encoder that sees each square of pixels by itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vargpt_lightning.models.core.config import TokenizerConfig
from vargpt_lightning.models.tokenizer.build import build_tokenizer

SIZES = {"scales": (1, 2, 4), "channels": 8, "channel_multipliers": (1, 2), "residual_blocks": 1, "code_size": 4}


@pytest.fixture
def pictures_B3HW() -> Tensor:
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("kind", ["indices", "bits"])
def test_features_follow_their_own_square_alone(kind: str, pictures_B3HW: Tensor) -> None:
    config = TokenizerConfig(kind=kind, vocabulary=32, patch=2, local=True, **SIZES)  # type: ignore[arg-type]
    tokenizer = build_tokenizer(config)
    before = tokenizer.features(pictures_B3HW)
    changed_B3HW = pictures_B3HW.clone()
    changed_B3HW[:, :, 4:8, 8:12] = 0.5
    after = tokenizer.features(changed_B3HW)
    moved = torch.zeros(4, 4, dtype=torch.bool)
    moved[1, 2] = True
    assert torch.equal((before != after).any(1)[0], moved)


def test_equal_squares_have_equal_features() -> None:
    tokenizer = build_tokenizer(TokenizerConfig(vocabulary=32, patch=2, local=True, **SIZES))  # type: ignore[arg-type]
    square_344 = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0))
    features_1CHW = tokenizer.features(square_344.repeat(1, 4, 4)[None])
    torch.testing.assert_close(features_1CHW, features_1CHW[:, :, :1, :1].expand_as(features_1CHW), rtol=0, atol=1e-6)


def test_a_convolutional_encoder_mixes_squares(pictures_B3HW: Tensor) -> None:
    tokenizer = build_tokenizer(TokenizerConfig(vocabulary=32, patch=2, **SIZES))  # type: ignore[arg-type]
    before = tokenizer.features(pictures_B3HW)
    changed_B3HW = pictures_B3HW.clone()
    changed_B3HW[:, :, 4:8, 8:12] = 0.5
    assert int((before != tokenizer.features(changed_B3HW)).any(1)[0].sum()) > 1


def test_its_gradients_reach_every_weight(pictures_B3HW: Tensor) -> None:
    tokenizer = build_tokenizer(TokenizerConfig(vocabulary=32, patch=2, local=True, **SIZES))  # type: ignore[arg-type]
    output = tokenizer(pictures_B3HW)
    (output.reconstruction.square().mean() + output.vq_loss).backward()
    assert all(parameter.grad is not None for parameter in tokenizer.encoder.parameters())
