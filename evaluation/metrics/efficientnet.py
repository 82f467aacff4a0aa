"""Distances between sets of pictures on EfficientNet-Lite0's features, exact also for a few hundred pictures.

The features are EfficientNet-Lite0's and the names say so: these metrics are never comparable with published KID or
FID, which use Inception features. They compare sets measured by this code at one feature resolution.

Shapes: N real pictures, M drawn pictures, C feature channels.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vargpt_lightning.evaluation.metrics.base import Features, TwoSets, ValueRange
from vargpt_lightning.evaluation.metrics.networks import EfficientNetLite0Features

NOT_COMPARABLE = (
    "Measured on EfficientNet-Lite0 features: compare these metrics with each other, never with published KID or FID."
)


class KernelDistance(NamedTuple):
    """KID and how far it would move on other pictures of the same kind (standard error, or deviation over subsets)."""

    value: float
    error: float


def kernel_distance(
    real_NC: Tensor, drawn_MC: Tensor, *, subsets: int = 0, subset_size: int = 100, seed: int = 0
) -> KernelDistance:
    """Kernel distance: the unbiased squared MMD with k(x, y) = (x.y / C + 1)^3 (Binkowski et al., 2018, section 3).

    With `subsets` = 0 it is computed on all pictures, with a jackknife standard error over both sets; else it is the
    mean over random subsets of `subset_size`, with their standard deviation. It is unbiased when the two sets are drawn
    apart; for a set against itself, or against altered copies of itself, it is biased downwards, so compare it with the
    value of other copies.

    Returns NaN for fewer than two pictures on a side. Raises ValueError when a subset is larger than a set.
    """
    if min(len(real_NC), len(drawn_MC)) < 2:
        return KernelDistance(math.nan, math.nan)
    real_NC, drawn_MC = real_NC.double(), drawn_MC.double()
    if subsets == 0:
        return _full_kernel_distance(real_NC, drawn_MC)
    if not 2 <= subset_size <= min(len(real_NC), len(drawn_MC)):
        raise ValueError(f"subset_size: got {subset_size}, expected 2 to {min(len(real_NC), len(drawn_MC))}")
    generator = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(subsets):
        chosen = [torch.randperm(len(set_), generator=generator)[:subset_size] for set_ in (real_NC, drawn_MC)]
        values.append(_full_kernel_distance(real_NC[chosen[0]], drawn_MC[chosen[1]]).value)
    values_S = torch.tensor(values, dtype=torch.float64)
    return KernelDistance(values_S.mean().item(), values_S.std(correction=0).item())


def _full_kernel_distance(real_NC: Tensor, drawn_MC: Tensor) -> KernelDistance:
    n, m = len(real_NC), len(drawn_MC)
    # Row sums are all that the estimate and its leave-one-out versions need.
    real_N = _kernel(real_NC, real_NC).fill_diagonal_(0).sum(dim=1)
    drawn_M = _kernel(drawn_MC, drawn_MC).fill_diagonal_(0).sum(dim=1)
    cross_NM = _kernel(real_NC, drawn_MC)
    real, drawn, cross = real_N.sum(), drawn_M.sum(), cross_NM.sum()
    value = real / (n * (n - 1)) + drawn / (m * (m - 1)) - 2 * cross / (n * m)
    variance = torch.zeros((), dtype=torch.float64)
    for rows, total, size, cross_rows, other, other_size in (
        (real_N, real, n, cross_NM.sum(dim=1), drawn, m),
        (drawn_M, drawn, m, cross_NM.sum(dim=0), real, n),
    ):
        if size < 3:
            return KernelDistance(value.item(), math.nan)
        left_out = (total - 2 * rows) / ((size - 1) * (size - 2)) + other / (other_size * (other_size - 1))
        left_out = left_out - 2 * (cross - cross_rows) / ((size - 1) * other_size)
        variance += (size - 1) / size * (left_out - left_out.mean()).square().sum()
    return KernelDistance(value.item(), variance.sqrt().item())


def _kernel(x_NC: Tensor, y_MC: Tensor) -> Tensor:
    return (x_NC @ y_MC.T / x_NC.shape[1] + 1).pow(3)


def frechet_distance(real_NC: Tensor, drawn_MC: Tensor) -> float:
    """Frechet distance of two Gaussians fitted to the features, in float64 (Heusel et al., 2017, equation 6).

    The trace of the covariances' root is the sum of the singular values of A B^T for factors with A^T A and B^T B the
    covariances: exact, also where there are fewer pictures than channels and the covariances are singular. Then
    the distance has a floor above zero; see `few_samples`. Returns NaN for fewer than two pictures on a side.
    """
    if min(len(real_NC), len(drawn_MC)) < 2:
        return math.nan
    real_NC, drawn_MC = real_NC.double(), drawn_MC.double()
    a, b = _covariance_factor(real_NC), _covariance_factor(drawn_MC)
    root_trace = torch.linalg.svdvals(a @ b.T).sum()
    shift = (real_NC.mean(dim=0) - drawn_MC.mean(dim=0)).square().sum()
    return (shift + a.square().sum() + b.square().sum() - 2 * root_trace).clamp(min=0).item()


def _covariance_factor(features_NC: Tensor) -> Tensor:
    factor_NC = (features_NC - features_NC.mean(dim=0)) / math.sqrt(len(features_NC) - 1)
    if len(factor_NC) > factor_NC.shape[1]:
        return torch.linalg.qr(factor_NC, mode="r").R
    return factor_NC


def few_samples(*sets: Tensor) -> bool:
    """True when a set has fewer pictures than channels: a Frechet distance then is dominated by the sample's size."""
    return any(len(features_NC) < features_NC.shape[1] for features_NC in sets)


class EfficientNetKernelDistance(TwoSets):
    """The kernel distance of drawn and real pictures on EfficientNet-Lite0's features, over all pairs of pictures.

    No unit; unbiased, so that it may come out below 0 where sets are alike, and never comparable with published KID.
    `update` takes pictures (B, 3, H, W), uint8 or floats in `value_range`, and whether they are real; the states are
    their features, float32. `compute_all` has a jackknife standard error too, as `kid_error`. NaN below two pictures.

    Args:
        features: a network (see `Features`); None is EfficientNet-Lite0 at 128 pixels.
        value_range: what black and white are in pictures of floats.
        settings: torchmetrics' own.

    Source: Binkowski et al., Demystifying MMD GANs, 2018, section 3.
    """

    higher_is_better = False
    headline = "kid"

    def __init__(
        self, features: Features | None = None, *, value_range: ValueRange = (0.0, 1.0), **settings: Any
    ) -> None:
        super().__init__(features or EfficientNetLite0Features(), value_range, **settings)

    def _values(self) -> dict[str, float]:
        found = kernel_distance(self.rows("real").cpu(), self.rows("drawn").cpu())
        return {"kid": found.value, "kid_error": found.error}
