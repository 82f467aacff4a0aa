"""What every benchmark has in common: a score, its status, the counts that are always reported, and intervals.

Nothing here imports torch: scoring runs anywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, Literal

import numpy as np

from vargpt_lightning.utils.errors import UserError, meant

Record = dict[str, Any]
"""A question with the column names of the benchmark's public mirror. Scoring never changes one."""

Protocol = Literal["lmms_eval", "official", "lenient"]
PROTOCOLS: tuple[Protocol, ...] = ("lmms_eval", "official", "lenient")
EARLIER = "lmms_eval_0.3"
"""Of the benchmarks whose rules lmms-eval changed after its release 0.3; these list theirs as `KNOWN`."""
OWN = "exact"
"""Of questions that nobody else asks, so that no other's rules hold: equal up to case, punctuation and spaces."""

Status = Literal["ok", "empty", "unparsed", "guessed", "judged", "truncated"]
STATUSES: tuple[Status, ...] = ("ok", "empty", "unparsed", "guessed", "judged", "truncated")

RESAMPLES = 1000


@dataclass(frozen=True)
class Score:
    """What one output is worth.

    `value` is from 0 to 1, `parsed` what was taken for the answer. `status`: "ok"; "empty" output; "unparsed", no
    answer found in it; "guessed", an answer drawn at random in place of one; "judged", found by a judge; "truncated",
    the output reached the limit of new tokens.
    """

    value: float
    parsed: Any = None
    status: Status = "ok"

    def cut_off(self) -> Score:
        """The same score of an output that reached the limit of new tokens."""
        return replace(self, status="truncated")


def check_protocol(protocol: str, known: Sequence[str] = PROTOCOLS) -> None:
    """Raises UserError for a protocol that there is not."""
    if protocol not in known:
        raise UserError(f"protocol: {protocol!r}; expected one of {', '.join(known)}{meant(protocol, known)}")


def rule_of(module: ModuleType, protocol: str) -> str:
    """The protocol that a benchmark's results of this one are named by; its own where it has no others' rules."""
    return str(getattr(module, "NAMED", {}).get(protocol, protocol))


def counts(scores: Sequence[Score]) -> dict[str, float]:
    """The counts that stand beside every figure: n, then how many scores have each status but ok."""
    found = Counter(score.status for score in scores)
    return {"n": float(len(scores)), **{status: float(found[status]) for status in STATUSES if status != "ok"}}


def mean_interval(values: Sequence[float], seed: int = 0, resamples: int = RESAMPLES) -> tuple[float, float]:
    """95 % percentile bootstrap interval of a mean over independent values; (nan, nan) of none.

    Exact in distribution and fast: a resample of n values is a multinomial draw over the distinct values.
    """
    if len(values) == 0:
        return float("nan"), float("nan")
    distinct, times = np.unique(np.asarray(values, dtype=np.float64), return_counts=True)
    n = int(times.sum())
    drawn = np.random.default_rng(seed).multinomial(n, times / n, size=resamples)
    low, high = np.percentile(drawn @ distinct / n, (2.5, 97.5))
    return float(low), float(high)


def group_interval(
    values: Sequence[float], groups: Sequence[Hashable], seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of a mean over all values, whole groups resampled; (nan, nan) of none."""
    if len(values) == 0:
        return float("nan"), float("nan")
    places: dict[Hashable, int] = {}
    index = np.array([places.setdefault(group, len(places)) for group in groups])
    sums = np.bincount(index, weights=np.asarray(values, dtype=np.float64), minlength=len(places))
    sizes = np.bincount(index, minlength=len(places))
    generator = np.random.default_rng(seed)
    means = np.empty(resamples)
    for number in range(resamples):  # one resample at a time keeps the memory flat
        drawn = generator.integers(0, len(places), len(places))
        means[number] = sums[drawn].sum() / sizes[drawn].sum()
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)
