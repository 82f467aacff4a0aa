"""Orthogonal factors of matrices by Newton-Schulz iterations of degree five, for Muon.

Legend: N matrices of one shape, R rows, S columns, r and s the smaller and the larger of the two.
"""

from __future__ import annotations

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ROUNDS = (3, 2)
"""Iterations of each round in the space of X Xᵀ, whose rounding errors grow with the square of those of X: with all
five in one round they are 30 times larger, with these no larger than with rounds of one."""


def orthogonalize(matrix_NRS: Tensor) -> Tensor:
    """Return matrices with their singular values pushed towards one: one (R, S), or several (N, R, S).

    An iteration multiplies X by a polynomial of X Xᵀ. All these commute, so those of a round are multiplied first, as
    r x r matrices, and X once; where X is nearly square that saves nothing.
    """
    a, b, c = COEFFICIENTS
    single, tall = matrix_NRS.dim() == 2, matrix_NRS.shape[-2] > matrix_NRS.shape[-1]
    x_Nrs = matrix_NRS.mT if tall else matrix_NRS
    x_Nrs = x_Nrs[None] if single else x_Nrs
    x_Nrs = x_Nrs / (x_Nrs.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    wide = x_Nrs.shape[-1] >= 2 * x_Nrs.shape[-2]
    for count in ROUNDS if wide else [1] * sum(ROUNDS):
        gram_Nrr = x_Nrs @ x_Nrs.mT
        factor_Nrr = torch.baddbmm(gram_Nrr, gram_Nrr, gram_Nrr, beta=b, alpha=c)
        if count == 1:
            x_Nrs = torch.baddbmm(x_Nrs, factor_Nrr, x_Nrs, beta=a)
            continue
        factor_Nrr.diagonal(dim1=-2, dim2=-1).add_(a)
        product_Nrr = factor_Nrr
        for _ in range(count - 1):
            gram_Nrr = factor_Nrr @ gram_Nrr @ factor_Nrr
            factor_Nrr = torch.baddbmm(gram_Nrr, gram_Nrr, gram_Nrr, beta=b, alpha=c)
            factor_Nrr.diagonal(dim1=-2, dim2=-1).add_(a)
            product_Nrr = factor_Nrr @ product_Nrr
        x_Nrs = product_Nrr @ x_Nrs
    x_NRS = x_Nrs.mT if tall else x_Nrs
    return x_NRS[0] if single else x_NRS
