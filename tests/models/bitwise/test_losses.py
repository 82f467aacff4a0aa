"""The loss of bits."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from vargpt_lightning.models.bitwise.losses import bit_loss, bit_losses, scale_weights
from vargpt_lightning.models.core.aspect_ratios import schedule_of
from vargpt_lightning.models.core.scales import ScaleSchedule


def random_case(schedule: ScaleSchedule) -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(0)
    logits_BLV = torch.randn(2, schedule.num_tokens, 12, generator=draws) * 3
    return logits_BLV, torch.randint(2, (2, schedule.num_tokens, 6), generator=draws)


def test_bits_are_two_way_cross_entropies() -> None:
    logits_BLV, bits_BLD = random_case(ScaleSchedule((1, (2, 3))))
    expected = F.cross_entropy(logits_BLV.view(-1, 2), bits_BLD.flatten(), reduction="none")
    torch.testing.assert_close(bit_losses(logits_BLV, bits_BLD).flatten(), expected)


def test_smoothed_labels_are_those_of_cross_entropy() -> None:
    logits_BLV, bits_BLD = random_case(ScaleSchedule((1, (2, 3))))
    expected = F.cross_entropy(logits_BLV.view(-1, 2), bits_BLD.flatten(), reduction="none", label_smoothing=0.2)
    torch.testing.assert_close(bit_losses(logits_BLV, bits_BLD, 0.2).flatten(), expected)


def test_counts_and_scales() -> None:
    schedule = ScaleSchedule((1, (2, 3)))
    logits_BLV, bits_BLD = random_case(schedule)
    found = bit_loss(logits_BLV, bits_BLD, schedule)
    tokens_BL = bit_losses(logits_BLV, bits_BLD).mean(-1)
    torch.testing.assert_close(found.loss, tokens_BL.mean())
    torch.testing.assert_close(found.per_scale_K, torch.stack((tokens_BL[:, :1].mean(), tokens_BL[:, 1:].mean())))
    likelier = logits_BLV.view(2, -1, 6, 2).argmax(-1)
    assert int(found.tokens) == 14
    torch.testing.assert_close(found.correct, (likelier == bits_BLD).sum() / 6)


def test_weights_shrink_with_the_root_of_a_scale_and_sum_to_one() -> None:
    """Behaviour of the authors' trainer, whose own expression crashes."""
    schedule = schedule_of(1.5, 5)
    weights_L = scale_weights(schedule)
    first = [weights_L[part.start] for part in schedule.slices]
    ratios = [float(first[0] / each) ** 2 for each in first]
    torch.testing.assert_close(torch.tensor(ratios), torch.tensor([1.0, 4.0, 6.0, 24.0, 54.0]))
    torch.testing.assert_close(weights_L.sum(), torch.tensor(1.0))
    logits_BLV, bits_BLD = random_case(schedule)
    found = bit_loss(logits_BLV, bits_BLD, schedule, weighted=True).loss
    torch.testing.assert_close(found, (bit_losses(logits_BLV, bits_BLD).mean(-1) * weights_L).sum(1).mean())
