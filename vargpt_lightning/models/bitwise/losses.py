"""The loss of bits: one two-way cross-entropy for each bit of a token.

Legend: B pictures, L tokens of all scales, K scales, D bits of a token.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vargpt_lightning.models.core.losses import ImageLoss
from vargpt_lightning.models.core.scales import ScaleSchedule


def scale_weights(schedule: ScaleSchedule, device: torch.device | str | None = None) -> Tensor:
    """Return each token's weight (L,), 1 over the square root of its scale's tokens, with the sum 1.

    So a scale's weight grows with the square root of its tokens, not with their number (Infinity's trainer; as it was
    released the expression crashes).
    """
    counts_K = torch.tensor([float(part.stop - part.start) for part in schedule.slices], device=device)
    weights_L = counts_K.rsqrt()[schedule.level_ids(device)]
    return weights_L / weights_L.sum()


def bit_logits(logits_BLV: Tensor) -> Tensor:
    """Return the logits of each bit's two values: (B, L, D, 2), that of 0 first."""
    return logits_BLV.unflatten(-1, (-1, 2))


def bit_losses(logits_BLV: Tensor, bits_BLD: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Return each bit's cross-entropy (B, L, D)."""
    zero_BLD, one_BLD = bit_logits(logits_BLV.float()).unbind(-1)
    wrong_BLD = torch.where(bits_BLD.bool(), zero_BLD - one_BLD, one_BLD - zero_BLD)
    # of two values the smoothed target is half of the smoothing away from certain
    return F.softplus(wrong_BLD) - label_smoothing / 2 * wrong_BLD


def average(losses_BL: Tensor, schedule: ScaleSchedule, *, weighted: bool) -> Tensor:
    """Return the mean over pictures and tokens; `weighted` weighs tokens as `scale_weights` says."""
    return (losses_BL * scale_weights(schedule, losses_BL.device)).sum(-1).mean() if weighted else losses_BL.mean()


def bit_loss(logits_BLV: Tensor, bits_BLD: Tensor, schedule: ScaleSchedule, *, weighted: bool = False) -> ImageLoss:
    """Return the loss of a batch: the mean over pictures, tokens and bits; right bits count as parts of a token.

    Args:
        weighted: weigh tokens as `scale_weights` says, rather than all the same.
    """
    losses_BLD = bit_losses(logits_BLV, bits_BLD)
    tokens_BL = losses_BLD.mean(-1)
    plain_L = tokens_BL.detach().mean(0)
    pairs_BLD2 = bit_logits(logits_BLV.detach())
    correct = ((pairs_BLD2[..., 1] > pairs_BLD2[..., 0]) == bits_BLD.bool()).float().mean(-1).sum()
    per_scale_K = torch.stack([plain_L[part].mean() for part in schedule.slices])
    tokens = torch.tensor(tokens_BL.numel(), device=bits_BLD.device)
    return ImageLoss(average(tokens_BL, schedule, weighted=weighted), tokens, correct, per_scale_K)
