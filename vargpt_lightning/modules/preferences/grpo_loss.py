"""Group relative policy optimization on visual tokens: advantages of a group, and the clipped objective of a token.

The published formula (DeepSeekMath, arXiv 2402.03300, equations 3 and 4), as AR-GRPO (arXiv 2508.06924) has it for
visual tokens: advantages are (R - mean) / (std + 1e-4) within a group, and of each drawing the mean over its tokens of

    min(r A, clip(r, 1 - eps, 1 + eps) A) - beta (exp(q - p) - (q - p) - 1)

is made larger, where r = exp(p - p_drawn), p is a token's log-probability, p_drawn that under the policy which drew it,
and q that under the reference.

Legend: N groups, G drawings of a group, Q = N G drawings, L visual tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

LEAST_SPREAD = 1e-4
"""Added to a group's standard deviation; AR-GRPO's."""


class GRPOTerms(NamedTuple):
    """The loss of each drawing (Q,), and means over its tokens without gradient: divergence, share of clipped ones."""

    loss_Q: Tensor
    kl_Q: Tensor
    clipped_Q: Tensor


def advantages(rewards_NG: Tensor) -> Tensor:
    """Return the advantages (N, G): 0 in a group whose rewards are all the same."""
    spread_N1 = rewards_NG.std(dim=1, unbiased=True, keepdim=True)
    found_NG = (rewards_NG - rewards_NG.mean(dim=1, keepdim=True)) / (spread_N1 + LEAST_SPREAD)
    alike_N1 = (rewards_NG == rewards_NG[:, :1]).all(dim=1, keepdim=True)
    return torch.where(alike_N1, torch.zeros_like(found_NG), found_NG)  # their mean may be a rounding away from them


def grpo_terms(
    now_QL: Tensor,
    drawn_QL: Tensor,
    reference_QL: Tensor | None,
    advantages_Q: Tensor,
    clip: float,
    kl: float,
    trained_L: Tensor | None = None,
) -> GRPOTerms:
    """Return what each drawing has of the loss.

    Args:
        now_QL: log-probabilities of visual tokens; the gradient is theirs.
        drawn_QL: the same under the policy that drew.
        reference_QL: the same under the reference; None leaves the divergence out.
        advantages_Q: of each drawing.
        clip: eps.
        kl: beta.
        trained_L: which tokens count; None takes all.
    """
    count = now_QL.shape[1] if trained_L is None else int(trained_L.sum())
    weights_L = torch.ones_like(now_QL[0]) if trained_L is None else trained_L.to(now_QL)
    ratio_QL, advantages_Q1 = (now_QL - drawn_QL).exp(), advantages_Q[:, None].to(now_QL)
    held_QL = ratio_QL.clamp(1 - clip, 1 + clip)
    gain_QL = torch.minimum(ratio_QL * advantages_Q1, held_QL * advantages_Q1)
    apart_QL = torch.zeros_like(now_QL)
    if reference_QL is not None:
        less_QL = reference_QL - now_QL
        apart_QL = less_QL.exp() - less_QL - 1

    def mean(x_QL: Tensor) -> Tensor:
        return (x_QL * weights_L).sum(dim=1) / count

    with torch.no_grad():
        clipped_QL = (ratio_QL * advantages_Q1 > held_QL * advantages_Q1).to(now_QL)
        shown = mean(apart_QL), mean(clipped_QL)
    return GRPOTerms(mean(kl * apart_QL - gain_QL), *shown)
