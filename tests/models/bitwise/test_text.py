"""Attention over encoded prompts: padded ones are as those alone, and how the result is rounded."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from tests.models.bitwise.cases import small_text
from vargpt_lightning.models.bitwise.text import AttentivePool, CrossAttention, TextRows, pool_heads
from vargpt_lightning.utils.errors import UserError


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def test_prompts_are_read_as_if_they_were_alone() -> None:
    text, x_BLC = small_text((2, 5, 1), width=16), torch.randn(3, 7, 16)
    layer, pool = CrossAttention(16, 4), AttentivePool(16, 16)
    torch.nn.init.normal_(layer.v_bias), torch.nn.init.normal_(pool.ca.mat_q)
    together, pooled = layer(x_BLC, layer.keys_values(text)), pool(text)
    for row, rows_TW in enumerate(text.prompts()):
        alone = TextRows(rows_TW, (len(rows_TW),))
        torch.testing.assert_close(layer(x_BLC[row : row + 1], layer.keys_values(alone))[0], together[row])
        torch.testing.assert_close(pool(alone)[0], pooled[row])


def test_scores_are_plain_ones() -> None:
    """Divided by the root of a head's width; neither cosine nor rotation."""
    text, x_1LC = small_text((3,), width=16), torch.randn(1, 2, 16)
    layer = CrossAttention(16, 4)
    k_THE, v_THE = layer.mat_kv(text.rows_RW).view(3, 2, 4, 4).unbind(1)
    q_LHE = layer.mat_q(x_1LC[0]).view(2, 4, 4)
    weights_HLT = (torch.einsum("lhe,the->hlt", q_LHE, k_THE) / 2).softmax(-1)
    expected = layer.proj(torch.einsum("hlt,the->lhe", weights_HLT, v_THE).flatten(1))
    torch.testing.assert_close(layer(x_1LC, layer.keys_values(text))[0], expected)


def test_rounding_is_that_of_a_kernel_for_16_bits() -> None:
    text, x_BLC = small_text((2, 5), width=16), torch.randn(2, 3, 16)
    plain, rounded = CrossAttention(16, 4), CrossAttention(16, 4, rounded=True)
    rounded.load_state_dict(plain.state_dict())
    rounded.proj, plain.proj = torch.nn.Identity(), torch.nn.Identity()
    exact, found = (layer(x_BLC, layer.keys_values(text)) for layer in (plain, rounded))
    assert torch.equal(found.bfloat16().float(), found)
    assert 0 < (found - exact).abs().max() < 0.05


def test_heads_of_the_pool_follow_the_texts_width() -> None:
    assert [pool_heads(2048, 2048), pool_heads(3584, 2048), pool_heads(4608, 2048)] == [16, 16, 32]
    assert pool_heads(64, 32) == 1  # where the released code divides by zero
    assert AttentivePool(64, 32)(small_text(width=32)).shape == (2, 64)
    with pytest.raises(UserError, match="width: got 64, expected a multiple of the 3 heads"):
        AttentivePool(64, 384)


def test_text_knows_its_prompts() -> None:
    one, two = small_text((2, 4)), small_text((1,), seed=9)
    assert len(one) == 2 and [len(rows) for rows in one.prompts()] == [2, 4]
    assert one.joined(two).lengths == (2, 4, 1)
    assert torch.equal(TextRows.of(one.prompts()).rows_RW, one.rows_RW)
    for lengths in ((), (0, 6), (2, 3)):
        with pytest.raises(UserError, match=r"^lengths: got .*expected one for each prompt, of 1 or more"):
            TextRows(F.pad(one.rows_RW, (0, 0)), lengths)
