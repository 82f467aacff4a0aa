"""The entropy terms of bits, and what is counted of their use."""

from __future__ import annotations

import math

import pytest
import torch

from vargpt_lightning.models.tokenizer.bit_tokenizer import BitTokenizer
from vargpt_lightning.models.tokenizer.bit_usage import BitCounts
from vargpt_lightning.models.tokenizer.entropy import bit_losses


def units(*values: list[float]) -> torch.Tensor:
    """Positions on the unit sphere, (1, d, 1, positions)."""
    return torch.nn.functional.normalize(torch.tensor(values, dtype=torch.float32), dim=1).T[None, :, None]


def test_entropies_are_those_of_the_softmax_over_all_codes() -> None:
    """With d bits there are 2^d codes; over them the soft code's entropy is the sum over bits that is computed."""
    torch.manual_seed(0)
    d, sharpness = 4, 2.0
    unit_Bdhw = torch.nn.functional.normalize(torch.randn(3, d, 2, 2), dim=1)
    codes_Cd = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * d) / d**0.5
    rows_Nd = unit_Bdhw.permute(0, 2, 3, 1).reshape(-1, d)
    soft_NC = (-sharpness * torch.cdist(rows_Nd, codes_Cd).square()).softmax(1)
    losses = bit_losses([unit_Bdhw], sharpness)
    torch.testing.assert_close(losses.sample, torch.special.entr(soft_NC).sum(1).mean())
    upper_d = (soft_NC @ (codes_Cd > 0).float()).mean(0)
    binary_d = torch.special.entr(upper_d) + torch.special.entr(1 - upper_d)
    torch.testing.assert_close(losses.batch, binary_d.sum())
    assert losses.batch > torch.special.entr(soft_NC.mean(0)).sum(), "an upper bound"
    torch.testing.assert_close(losses.penalty, (losses.sample - losses.batch) / sharpness)
    nearest_Nd = codes_Cd[torch.cdist(rows_Nd, codes_Cd).argmin(1)]
    torch.testing.assert_close(losses.commitment, (rows_Nd - nearest_Nd).square().mean())


def test_bits_that_differ_cost_less_than_constant_ones() -> None:
    even = bit_losses([units([1, 1], [-1, -1], [1, -1], [-1, 1])], 10.0)
    constant = bit_losses([units([1, 1], [1, 1], [1, 1], [1, 1])], 10.0)
    assert even.batch.item() == pytest.approx(2 * math.log(2)) and constant.batch.item() == pytest.approx(0, abs=1e-4)
    assert even.sample.item() == pytest.approx(constant.sample.item(), abs=1e-6) and even.penalty < constant.penalty
    assert even.commitment.item() == pytest.approx(0, abs=1e-12)
    unsure = bit_losses([units([1, 0.01], [-1, -0.01])], 10.0)
    assert unsure.sample > 0.5 and unsure.commitment > 0.01


def test_terms_are_means_over_scales_and_finite_where_all_is_certain() -> None:
    one, two = units([1, 1], [-1, 1]), units([1, -1], [0.3, -1])
    both = bit_losses([one, two], 5.0)
    for term, first, second in zip(both, bit_losses([one], 5.0), bit_losses([two], 5.0), strict=True):
        torch.testing.assert_close(term, (first + second) / 2)
    certain = units([1, 1], [1, 1]).requires_grad_()
    losses = bit_losses([certain], 1e4)
    sum(losses).backward()  # type: ignore[union-attr]
    assert all(term.isfinite() for term in losses) and certain.grad is not None and certain.grad.isfinite().all()


def test_the_penalty_pulls_constant_bits_apart() -> None:
    torch.manual_seed(0)
    free = (torch.randn(64, 8, 1, 1) * 0.05 + 0.2).requires_grad_()  # all bits are 1
    optimizer = torch.optim.Adam([free], 0.02)
    for _ in range(200):
        optimizer.zero_grad()
        bit_losses([torch.nn.functional.normalize(free, dim=1)], 10.0).penalty.backward()
        optimizer.step()
    share_d = (free > 0).float().mean((0, 2, 3))
    assert ((share_d > 0.2) & (share_d < 0.8)).all()


def test_use_is_the_entropy_of_each_bit_since_the_reset() -> None:
    counts = BitCounts(2, 3)
    assert counts.used_SD().tolist() == [[0, 0, 0], [0, 0, 0]]
    first = torch.tensor([[[1, 0, 0]], [[0, 0, 1]]])
    second = torch.tensor([[[1, 1, 0], [0, 1, 1]], [[1, 1, 0], [0, 1, 0]]])
    counts.record([first, second])
    counts.record([first, second])
    assert counts.seen_S.tolist() == [4, 8]
    quarter = 100 * (0.25 * 2 + 0.75 * math.log2(4 / 3))
    torch.testing.assert_close(counts.used_SD(), torch.tensor([[100.0, 0.0, 100.0], [100.0, 0.0, quarter]]))
    other = BitCounts(2, 3)
    other.take(counts.plain())
    assert torch.equal(other.ones_SD, counts.ones_SD) and torch.equal(other.seen_S, counts.seen_S)
    counts.reset()
    assert not counts.ones_SD.any() and not counts.seen_S.any()


def test_a_tokenizer_counts_in_training_alone() -> None:
    torch.manual_seed(0)
    model = BitTokenizer(scales=(1, 2), channels=8, channel_multipliers=(1, 1), residual_blocks=1, bits=6)
    x_B3HW = torch.rand(3, 3, 4, 4) * 2 - 1
    bits_BLD = model.eval()(x_B3HW).codes
    assert not model.usage.seen_S.any()
    output = model.train()(x_B3HW)
    assert model.usage.plain() == [[3, 12], bits_BLD[:, 0].sum(0).tolist(), bits_BLD[:, 1:].sum((0, 1)).tolist()]
    assert set(output.terms) == {"commitment_loss", "sample_entropy", "batch_entropy"}
    penalty = (output.sample_entropy - output.batch_entropy) / 100
    torch.testing.assert_close(output.vq_loss, 0.25 * output.commitment_loss + 0.1 * penalty)
    (output.reconstruction.square().mean() + output.vq_loss).backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())
