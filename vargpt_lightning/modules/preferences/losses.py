"""Losses of preferences, as published, of log-ratios: a score under the model less the same under the reference.

Legend: N pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def dpo_losses(chosen_N: Tensor, rejected_N: Tensor, beta: float) -> Tensor:
    """Return -log sigmoid(beta (chosen - rejected)) of log-ratios (Rafailov et al., arXiv 2305.18290, equation 7)."""
    return -F.logsigmoid(beta * (chosen_N - rejected_N))


def cca_losses(own_N: Tensor, other_N: Tensor, right_N: Tensor, beta: float, negative_weight: float) -> Tensor:
    """Return the loss of condition contrastive alignment of log-ratios (Chen et al., arXiv 2410.09347).

    -log sigmoid(beta own) - weight log sigmoid(-beta other), divided by the weight where it is above 1. As in the
    released code, a row that is right with the other picture as well has +other in place of -other, with the weight 1.

    Args:
        own_N: of pictures beside their own prompts.
        other_N: of other pictures beside the same prompts.
        right_N: where these are right as well.
        negative_weight: the paper's lambda.
    """
    signed_N = torch.where(right_N, other_N, -other_N)
    weights_N = torch.where(right_N, 1.0, negative_weight)
    losses_N = -F.logsigmoid(beta * own_N) - weights_N * F.logsigmoid(beta * signed_N)
    return losses_N / max(negative_weight, 1.0)
