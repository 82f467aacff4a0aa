"""Codes that are changed on their way: how many, where, and what training makes of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.models.cases import small_model
from vargpt_lightning.models.core.correction import SelfCorrection
from vargpt_lightning.models.core.shared_random import RankInvariantRng
from vargpt_lightning.models.tokenizer.bit_tokenizer import BitTokenizer
from vargpt_lightning.models.tokenizer.image_tokenizer import ImageTokenizer
from vargpt_lightning.models.tokenizer.self_correction import random_change
from vargpt_lightning.utils.errors import UserError

SIZES: dict[str, Any] = {"scales": (1, 4, 16), "channels": 4, "channel_multipliers": (1, 1), "residual_blocks": 1}


def tokenizers() -> list[BitTokenizer | ImageTokenizer]:
    torch.manual_seed(0)
    return [BitTokenizer(**SIZES, bits=8), ImageTokenizer(**SIZES, code_size=4, vocabulary=3)]


def zeros(tokenizer: BitTokenizer | ImageTokenizer, batch: int, k: int) -> Tensor:
    height, width = tokenizer.schedule.shapes[k]
    return torch.zeros(batch, height * width, *([8] if isinstance(tokenizer, BitTokenizer) else []), dtype=torch.long)


@pytest.mark.parametrize("number", [0, 1])
def test_a_scale_has_one_share_for_the_batch_up_to_the_strength(number: int) -> None:
    tokenizer = tokenizers()[number]
    shares = []
    for seed in range(60):
        draws = torch.Generator().manual_seed(seed)
        change = random_change(tokenizer, SelfCorrection(strength=0.2), 8, draws)
        changed = (change(2, zeros(tokenizer, 8, 2)) != 0).float()
        shares.append(float(changed.mean()))
        spread = changed.flatten(1).mean(1)
        assert (spread - shares[-1]).abs().max() < 0.1  # each picture has about that share
    assert max(shares) < 0.23 and min(shares) < 0.02
    assert sum(shares) / 60 == pytest.approx(0.1, abs=0.025)


def test_changed_indices_are_other_ones_evenly_and_changed_bits_are_flipped() -> None:
    bits, indices = tokenizers()
    change = random_change(indices, SelfCorrection(strength=1.0), 64, torch.Generator().manual_seed(3))
    found = change(2, torch.ones(64, 256, dtype=torch.long)).flatten().bincount(minlength=3)
    assert found.sum() == 64 * 256 and found[0] / found[2] == pytest.approx(1, abs=0.1)
    codes = torch.randint(0, 2, (4, 256, 8))
    flipped = random_change(bits, SelfCorrection(), 4, torch.Generator().manual_seed(1))(2, codes)
    assert set(flipped.unique().tolist()) == {0, 1} and not torch.equal(codes, flipped)


def test_only_so_many_scales_are_changed_and_strength_0_changes_none() -> None:
    tokenizer = tokenizers()[0]
    for seed in range(10):
        draws = torch.Generator().manual_seed(seed)
        change = random_change(tokenizer, SelfCorrection(strength=1.0, scales=1), 4, draws)
        assert not change(1, zeros(tokenizer, 4, 1)).any()
        change = random_change(tokenizer, SelfCorrection(strength=0.0), 4, draws)
        assert not change(0, zeros(tokenizer, 4, 0)).any()


def test_pictures_are_changed_alike_however_they_are_spread() -> None:
    tokenizer = tokenizers()[0]

    def changed(before: int, own: int, after: int) -> Tensor:
        draws = RankInvariantRng(before, own, after, torch.Generator().manual_seed(5))
        return random_change(tokenizer, SelfCorrection(), own, draws)(2, zeros(tokenizer, own, 2))

    whole = changed(0, 5, 0)
    assert whole.any() and torch.equal(whole, torch.cat([changed(0, 2, 3), changed(2, 3, 0)]))


@pytest.mark.parametrize("number", [0, 1])
def test_without_a_change_codes_and_inputs_are_the_plain_ones(number: int) -> None:
    tokenizer = tokenizers()[number].eval()
    x_B3HW = torch.rand(2, 3, 32, 32) * 2 - 1
    codes, inputs = tokenizer.encode_changed(x_B3HW, lambda k, codes: codes)
    assert torch.equal(codes, tokenizer.encode(x_B3HW))
    torch.testing.assert_close(inputs, tokenizer.next_scale_inputs(codes), rtol=1e-5, atol=1e-6)


def test_later_indices_make_up_for_changed_ones() -> None:
    """The sum of all codes comes nearer to the features than the same changes do without new targets."""
    tokenizer = tokenizers()[1].eval()
    torch.nn.init.normal_(tokenizer.quantize.embedding.weight)
    f_BCHW = torch.randn(4, 4, 16, 16)
    change = random_change(tokenizer, SelfCorrection(strength=1.0, scales=2), 4, torch.Generator().manual_seed(2))
    codes = tokenizer.changed(f_BCHW, change)[0]
    plain = tokenizer.quantize_features(f_BCHW)
    first = tokenizer.schedule.slices[0]
    assert torch.equal(codes[:, first], plain[:, first]) and not torch.equal(codes, plain)
    errors = []
    for targets in (codes, plain):
        fed = torch.cat([change(k, targets[:, part]) for k, part in enumerate(tokenizer.schedule.slices)], 1)
        errors.append(float((tokenizer.f_hat_per_scale(fed)[-1] - f_BCHW).square().mean()))
    assert errors[0] < errors[1]


@pytest.mark.parametrize("alone", [True, False])
def test_a_model_is_trained_on_changed_codes_and_validated_on_its_own(alone: bool) -> None:
    model = small_model()
    assert isinstance(model.image_tokenizer, ImageTokenizer)
    size = model.image_tokenizer.picture_size
    batch = {"drawn_pixels": torch.rand(2, 3, size, size) * 2 - 1}
    correction = SelfCorrection(strength=1.0)

    def fed(training: bool, given: SelfCorrection | None) -> tuple[Tensor, Tensor]:
        model.train(training)
        model.image_tokenizer.eval()
        found = model.codes_and_inputs(batch, torch.Generator().manual_seed(0), given)
        assert found is not None
        return found

    plain, changed, validated = fed(True, None), fed(True, correction), fed(False, correction)
    assert torch.equal(plain[1], validated[1]) and not torch.equal(plain[1], changed[1])
    assert torch.equal(plain[0][:, :1], changed[0][:, :1])
    with pytest.raises(UserError, match="self_correction: got drawn_indices, expected drawn_pixels"):
        model.train().codes_and_inputs({"drawn_indices": plain[0]}, None, correction)
    if alone:
        output = model.decoder_only(batch, torch.Generator().manual_seed(0), correction)
        assert output.image_indices is not None and torch.equal(output.image_indices, changed[0])
