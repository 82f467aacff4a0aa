"""Distances between sets of pictures, and whether a drawing is the picture that was asked for: pure functions.

The features are EfficientNet-Lite0's and the names say so: these figures are never comparable with published KID or
FID, which use Inception features. They compare sets measured by this code at one feature resolution.

Shapes: N real pictures, M drawn pictures, C feature channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from vargpt_lightning.evaluation.features.efficientnet import pixels

KID_NAME = "KID (EfficientNet-Lite0)"
FD_NAME = "FD (EfficientNet-Lite0)"
NOT_COMPARABLE = (
    "Measured on EfficientNet-Lite0 features: compare these figures with each other, never with published KID or FID."
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


@dataclass(frozen=True)
class Identification:
    """Counts of drawings whose asked-for picture was the nearest real one, or among the nearest five. Counts add up."""

    n: int = 0
    at_1: int = 0
    at_5: int = 0

    def __add__(self, other: Identification) -> Identification:
        return Identification(self.n + other.n, self.at_1 + other.at_1, self.at_5 + other.at_5)


def identification_ranks(drawn_MC: Tensor, real_NC: Tensor, asked_M: Sequence[int]) -> list[int]:
    """For each drawing the rank (0 is the nearest) of the real picture asked for, by cosine of the features.

    A tie counts against the drawing: of real pictures equally near, the one asked for comes last.
    """
    if len(drawn_MC) == 0:
        return []
    cosine_MN = cosine(drawn_MC, real_NC)
    asked = torch.as_tensor(list(asked_M))
    own_M1 = cosine_MN.gather(1, asked[:, None])
    return ((cosine_MN >= own_M1).sum(dim=1) - 1).tolist()


def cosine(x_MC: Tensor, y_NC: Tensor) -> Tensor:
    """Cosine of every row of x with every row of y, (M, N), in float64."""
    x_MC, y_NC = torch.nn.functional.normalize(x_MC.double()), torch.nn.functional.normalize(y_NC.double())
    return x_MC @ y_NC.T


def identification(ranks: Sequence[int], missing: int = 0) -> Identification:
    """Counts from ranks; `missing` requests that brought no picture count as not identified."""
    found = sum(rank == 0 for rank in ranks), sum(rank < 5 for rank in ranks)
    return Identification(len(ranks) + missing, *found)


def blur(picture: Image.Image, sigma: float) -> Image.Image:
    """The picture under a Gaussian blur of `sigma` pixels, edges mirrored."""
    x_13HW = pixels([picture])
    # Mirroring cannot reach beyond the picture: the kernel of a tiny picture is cut.
    reach = min(math.ceil(4 * sigma), min(x_13HW.shape[-2:]) - 1)
    blurred = gaussian_blur(x_13HW, [2 * reach + 1] * 2, [sigma, sigma])
    return Image.fromarray(blurred[0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy())


def noise(size: tuple[int, int], count: int, seed: int = 0) -> list[Image.Image]:
    """Pictures of uniform noise, (width, height) pixels."""
    generator = np.random.default_rng(seed)
    return [Image.fromarray(generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)) for _ in range(count)]


def squared_error(real: Sequence[Image.Image], other: Sequence[Image.Image]) -> tuple[float, int]:
    """Sum of squared pixel differences (pixels in [0, 1]) and how many numbers were compared."""
    total, count = 0.0, 0
    for one, two in zip(real, other, strict=True):
        difference = (pixels([one]) - pixels([two])) / 255
        total, count = total + difference.square().sum().item(), count + difference.numel()
    return total, count
