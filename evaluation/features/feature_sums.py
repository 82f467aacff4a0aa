"""Mean and covariance of features as sums that add up over batches and processes, kept in .npz files.

Shapes: N pictures, D feature channels. All sums are float64, so a set of any size takes D x D numbers of memory.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vargpt_lightning.distributed.group import Processes
from vargpt_lightning.evaluation.features.finite import check_finite
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import plain, write_bytes

MUST_AGREE = ("extractor", "variant", "layer", "weights")
"""What two sets of sums must have in common to be compared."""
ROUNDING = 1e-6  # of a covariance's trace: files of 32 bits stay well below


@dataclass
class FeatureSums:
    """Count, sum and sum of outer products; `about` says what was measured how (MUST_AGREE, the list's hash, ...)."""

    count: int
    sum_D: Tensor
    outer_DD: Tensor
    about: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def empty(cls, size: int, about: Mapping[str, Any] | None = None) -> FeatureSums:
        """Nothing measured yet, for features of `size` channels."""
        zeros = torch.zeros(size, dtype=torch.float64), torch.zeros(size, size, dtype=torch.float64)
        return cls(0, *zeros, dict(about or {}))

    @property
    def size(self) -> int:
        """D, the number of channels."""
        return len(self.sum_D)

    def add(self, features_ND: Tensor) -> None:
        """Adds a batch of features, in place."""
        x_ND = features_ND.detach().to(self.sum_D.device, torch.float64)
        self.count += len(x_ND)
        self.sum_D += x_ND.sum(dim=0)
        self.outer_DD.addmm_(x_ND.T, x_ND)

    def __add__(self, other: FeatureSums) -> FeatureSums:
        """Both sets together; raises UserError when they were not measured alike."""
        require_alike(self.about, other.about)
        return FeatureSums(
            self.count + other.count, self.sum_D + other.sum_D, self.outer_DD + other.outer_DD, dict(self.about)
        )

    def merge(self, processes: Processes) -> None:
        """Replaces the sums by those of all processes together, in every process."""
        self.count = sum(processes.gather(self.count))
        processes.all_reduce(self.sum_D)
        processes.all_reduce(self.outer_DD)

    def mean(self) -> np.ndarray:
        """The mean, (D,) float64; raises UserError without pictures."""
        self._at_least(1)
        return np.asarray((self.sum_D / self.count).numpy())

    def covariance(self) -> np.ndarray:
        """The covariance with N - 1 below, (D, D) float64; raises UserError for fewer than two pictures."""
        self._at_least(2)
        mean_D = self.sum_D / self.count
        covariance_DD = (self.outer_DD - self.count * torch.outer(mean_D, mean_D)) / (self.count - 1)
        return np.asarray(covariance_DD.numpy())

    def save(self, path: Path) -> None:
        """Writes the sums in one step: count, sum, outer, and `about` as JSON."""
        content = io.BytesIO()
        about = np.array(json.dumps(plain(self.about), sort_keys=True))
        sum_, outer = self.sum_D.numpy(), self.outer_DD.numpy()
        np.savez(content, count=np.int64(self.count), sum=sum_, outer=outer, about=about)
        write_bytes(path, content.getvalue())

    @classmethod
    def load(cls, path: Path) -> FeatureSums:
        """Reads what `save` wrote; raises UserError for any other file."""
        found = read_arrays(path)
        if not {"count", "sum", "outer", "about"} <= found.keys():
            raise UserError(f"{path}: has {', '.join(sorted(found))}; expected count, sum, outer and about")
        shapes = [found[name].shape for name in ("count", "sum", "outer")]
        if len(shapes[1]) != 1 or shapes != [(), shapes[1], (*shapes[1], *shapes[1])]:
            said = ", ".join(f"{name} {shape}" for name, shape in zip(("count", "sum", "outer"), shapes, strict=True))
            raise UserError(f"{path}: the shapes are {said}; expected (), (D,) and (D, D)")
        _check_real(path, {name: found[name] for name in ("count", "sum", "outer")})
        try:
            about = json.loads(str(found["about"]))
        except ValueError as error:
            raise UserError(f"{path}: about is no JSON ({error}); expected how the features were measured") from error
        if not isinstance(about, dict):
            raise UserError(f"{path}: about is {str(about)[:80]}; expected keys with values")
        sum_D, outer_DD = (torch.from_numpy(found[name].astype(np.float64)) for name in ("sum", "outer"))
        return cls(int(found["count"]), sum_D, outer_DD, about)

    def _at_least(self, count: int) -> None:
        if self.count < count:
            raise UserError(f"{self.count} pictures were measured; expected at least {count}")


@dataclass(frozen=True)
class Moments:
    """Mean (D,) and covariance (D, D) of a set, float64, and its count where that is known."""

    mu: np.ndarray
    sigma: np.ndarray
    count: int | None
    about: dict[str, Any]


def load_moments(path: Path) -> Moments:
    """Reads saved sums, or anybody's `mu` and `sigma` (the ADM evaluator, pytorch-fid, clean-fid write these).

    The latter do not say how they were measured: `about` is empty. Raises UserError for any other file.
    """
    found = read_arrays(path, skip=("arr_0", "outer"))
    if "about" in found:
        sums = FeatureSums.load(path)
        mu, sigma = sums.mean(), sums.covariance()
        _check_covariance(path, mu, sigma)
        return Moments(mu, sigma, sums.count, sums.about)
    if not {"mu", "sigma"} <= found.keys():
        there = ", ".join(sorted(found)) or "nothing"
        raise UserError(f"{path}: has {there}; expected saved statistics, or mu and sigma")
    _check_real(path, {name: found[name] for name in ("mu", "sigma")})
    mu, sigma = found["mu"].astype(np.float64), found["sigma"].astype(np.float64)
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)):
        raise UserError(f"{path}: mu is {mu.shape}, sigma {sigma.shape}; expected (D,) and (D, D)")
    _check_covariance(path, mu, sigma)
    return Moments(mu, sigma, None, {})


def _check_real(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        if array.dtype.kind not in "fiu":
            raise UserError(f"{path}: {name} is of type {array.dtype}; expected real numbers")


def _check_covariance(path: Path, mu_D: np.ndarray, sigma_DD: np.ndarray) -> None:
    """Refuse what is no covariance but for rounding: distances to it would be negative, or small by accident."""
    with np.errstate(over="ignore"):
        size = abs(np.trace(sigma_DD)) + 1e-6 * float(mu_D @ mu_D) + 1e-12
    if not np.isfinite(size):
        raise UserError(
            f"{path}: the numbers are too large to be compared; expected a mean and a covariance of features"
        )
    if np.abs(sigma_DD - sigma_DD.T).max(initial=0) > ROUNDING * size:
        raise UserError(f"{path}: sigma is not symmetric; expected a covariance")
    try:
        np.linalg.cholesky(sigma_DD + ROUNDING * size * np.eye(len(sigma_DD)))
    except np.linalg.LinAlgError as error:
        raise UserError(f"{path}: sigma has negative eigenvalues; expected a covariance") from error


def read_arrays(path: Path, skip: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, without those named; raises UserError when it is none. Runs no code of the file."""
    if not path.is_file():
        raise UserError(f"{path}: not found; expected an .npz file of statistics")
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files if name not in skip}
        check_finite(path, found)
        return found
    except UserError:
        raise
    except (OSError, ValueError, EOFError, AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not readable as .npz ({error}); expected statistics") from error
    except Exception as error:
        if type(error).__name__ == "BadZipFile":
            raise UserError(f"{path}: not readable as .npz ({error}); expected statistics") from error
        raise


def require_alike(one: Mapping[str, Any], two: Mapping[str, Any]) -> None:
    """Raises UserError naming the first thing in which two measurements differ: they cannot be compared."""
    for name in MUST_AGREE:
        if name in one and name in two and one[name] != two[name]:
            raise UserError(
                f"statistics with {name} {two[name]!r} beside features with {name} {one[name]!r}; "
                "they do not compare, measure both alike"
            )
