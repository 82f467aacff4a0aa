"""What keeps bits in use: the loss terms of binary spherical quantization (BSQ-ViT, arXiv 2406.07548).

Legend: B batch, d channels, h and w height and width of one scale's map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class BitLosses(NamedTuple):
    """The terms, averaged over scales: commitment (mean squared), and entropies in nats a position.

    ``sample`` is the entropy of a position's soft code, which should be small; ``batch`` that of the mean soft code,
    which should be large; ``penalty`` their difference over the sharpness.
    """

    commitment: Tensor
    sample: Tensor
    batch: Tensor
    penalty: Tensor


def bit_losses(units: Sequence[Tensor], sharpness: float) -> BitLosses:
    """Return the loss terms of what each scale quantized, (B, d, h, w) on the unit sphere.

    A feature u is softly the upper of the two codes ±1/√d with probability σ(4 t u/√d): their softmax over negative
    squared distances times t, the sharpness. Over independent bits the entropy of a position is the sum of its bits';
    that of the batch is taken as such a sum too, which is an upper bound (the paper's soft quantization and its
    factorised entropies; groups of one bit in its code).
    """
    commitment, sample, batch = [], [], []
    for unit_Bdhw in units:
        d = unit_Bdhw.shape[1]
        code_Bdhw = torch.where(unit_Bdhw.detach() > 0, 1.0, -1.0) * d**-0.5
        commitment.append(F.mse_loss(unit_Bdhw, code_Bdhw))
        logits_Bdhw = 4 * sharpness * d**-0.5 * unit_Bdhw
        sample.append(_entropy(logits_Bdhw).sum(1).mean())
        share_d = torch.sigmoid(logits_Bdhw).mean(dim=(0, 2, 3))
        batch.append(torch.special.entr(torch.stack([share_d, 1 - share_d]).clamp_min(1e-8)).sum())
    of_sample, of_batch = torch.stack(sample).mean(), torch.stack(batch).mean()
    return BitLosses(torch.stack(commitment).mean(), of_sample, of_batch, (of_sample - of_batch) / sharpness)


def _entropy(logits: Tensor) -> Tensor:
    """The entropy in nats of a choice of two with these log odds."""
    return F.softplus(logits) - logits * torch.sigmoid(logits)
