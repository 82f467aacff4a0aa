"""Whether two systems differ on the same questions: intervals, p values, their correction, and power. Imports no torch.

The sources of the formulas are named at each; all are of textbooks, and small enough to be here without a package.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

RESAMPLES = 10_000
CELLS = 1 << 22  # of resamples by kinds of groups that are in memory at a time
LEVEL, POWER = 0.05, 0.8
MCNEMAR, BOOTSTRAP = "McNemar, exact", "paired bootstrap"


class Paired(NamedTuple):
    """Two systems on the same questions.

    `difference` is the second's mean less the first's, `low` and `high` its 95 % interval, `better` and `worse` count
    the questions on which the second has more and less. `p` is of `test`, two-sided; `mcnemar` is there beside it where
    all scores are 0 or 1. `needed` questions of this kind would show a difference of this size (80 % power, 5 % level,
    infinite where there is none); `visible` is the smallest difference that this many questions would show.
    """

    n: int
    groups: int
    base: float
    other: float
    difference: float
    low: float
    high: float
    better: int
    worse: int
    p: float
    test: str
    mcnemar: float | None
    needed: float
    visible: float


def paired(
    base: Sequence[float], other: Sequence[float], groups: Sequence[Hashable], seed: int = 0, resamples: int = RESAMPLES
) -> Paired:
    """Compare scores of the same questions.

    The interval is the percentile bootstrap's over whole groups: questions about one picture are no news of each other.
    The p value is McNemar's where each question stands alone and is right or wrong, else the bootstrap's.

    Args:
        base: scores of the first system.
        other: scores of the second, in the same order.
        groups: what each question belongs to, such as its picture; its own id where it stands alone.

    Raises:
        ValueError: no questions, or lists of different lengths.
    """
    first, second = np.asarray(base, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if len(first) == 0 or not len(first) == len(second) == len(groups):
        raise ValueError(f"{len(first)} and {len(second)} scores in {len(groups)} groups; expected as many of each")
    change = second - first
    better, worse = int((change > 0).sum()), int((change < 0).sum())
    sums, sizes = _by_group(change, groups)
    means = bootstrap_means(sums, sizes, seed, resamples)
    low, high = (float(end) for end in np.percentile(means, (2.5, 97.5)))
    difference = float(change.mean())
    binary = bool(np.isin(first, (0, 1)).all() and np.isin(second, (0, 1)).all())
    alone = len(sums) == len(change)
    mcnemar = mcnemar_exact(better, worse) if binary else None
    p = mcnemar if mcnemar is not None and alone else bootstrap_p(means, difference)
    spread = float(means.std())
    needed = (
        questions_by_discordant(better / len(change), worse / len(change))
        if binary and alone
        else questions_by_spread(difference, spread, len(change))
    )
    test = MCNEMAR if binary and alone else BOOTSTRAP
    ends = (float(first.mean()), float(second.mean()), difference, low, high, better, worse)
    return Paired(len(change), len(sums), *ends, p, test, mcnemar, needed, _reach() * spread)


def _by_group(values: np.ndarray, groups: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray]:
    """The sum and the size of each group."""
    places: dict[Hashable, int] = {}
    index = np.array([places.setdefault(group, len(places)) for group in groups])
    return np.bincount(index, weights=values), np.bincount(index)


def bootstrap_means(sums: np.ndarray, sizes: np.ndarray, seed: int = 0, resamples: int = RESAMPLES) -> np.ndarray:
    """Means over all questions of resamples of whole groups.

    Exact in distribution and fast: groups of one sum and size are alike, so a resample of all groups is a multinomial
    draw over these kinds (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 6).

    Args:
        sums: of each group's values.
        sizes: of each group.
    """
    kinds, times = np.unique(np.stack([sums, sizes], axis=1), axis=0, return_counts=True)
    generator, parts = np.random.default_rng(seed), []
    for start in range(0, resamples, step := max(1, CELLS // len(kinds))):
        drawn = generator.multinomial(len(sums), times / len(sums), size=min(step, resamples - start))
        parts.append((drawn @ kinds[:, 0]) / (drawn @ kinds[:, 1]))
    return np.concatenate(parts)


def bootstrap_p(means: np.ndarray, difference: float) -> float:
    """Two-sided p value of a difference: how often resamples lie as far from it as it lies from zero.

    The resamples moved to zero stand for no difference; one is added to both counts, so that p is never zero (Davison
    and Hinkley, Bootstrap Methods and their Application, 1997, sections 4.2.3 and 4.4).
    """
    far = np.abs(means - difference) >= abs(difference) * (1 - 1e-12)  # sums of one value differ by roundings
    return (1 + int(far.sum())) / (1 + len(means))


def mcnemar_exact(better: int, worse: int) -> float:
    """Two-sided p value of McNemar's test without approximation: the questions that changed sides are coin throws.

    Twice the smaller tail of Binomial(better + worse, 1/2), at most 1 (McNemar 1947; the exact form is that of
    statsmodels' and R's exact tests).
    """
    n, few = better + worse, min(better, worse)
    if n == 0:
        return 1.0
    whole = math.lgamma(n + 1) - n * math.log(2)
    terms = (whole - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(few + 1))
    return min(1.0, 2 * math.fsum(math.exp(term) for term in terms))


def holm(values: Sequence[float]) -> list[float]:
    """The p values corrected for their number, in their order, by Holm's step-down (1979, Scand. J. Statist. 6)."""
    corrected, most = [0.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        most = max(most, min(1.0, (len(values) - rank) * values[place]))
        corrected[place] = most
    return corrected


def questions_by_discordant(better: float, worse: float, level: float = LEVEL, power: float = POWER) -> float:
    """How many questions McNemar's test needs, from the shares that change sides each way.

    (z_level sqrt(d) + z_power sqrt(d - e^2))^2 / e^2 with d their sum and e their difference (Connor 1987, Biometrics
    43); infinite for equal shares.
    """
    discordant, effect = better + worse, better - worse
    if effect == 0:
        return math.inf
    alpha, beta = NormalDist().inv_cdf(1 - level / 2), NormalDist().inv_cdf(power)
    return math.ceil((alpha * math.sqrt(discordant) + beta * math.sqrt(discordant - effect**2)) ** 2 / effect**2)


def questions_by_spread(difference: float, spread: float, n: int, level: float = LEVEL, power: float = POWER) -> float:
    """How many questions show a difference, from the standard error that `n` of them have; infinite for none.

    The error shrinks with the root of n: n ((z_level + z_power) spread / difference)^2, a z test of paired differences.
    """
    if difference == 0:
        return math.inf
    return max(1, math.ceil(n * (_reach(level, power) * spread / difference) ** 2))


def _reach(level: float = LEVEL, power: float = POWER) -> float:
    """How many standard errors from zero a difference is found with this power."""
    return NormalDist().inv_cdf(1 - level / 2) + NormalDist().inv_cdf(power)
