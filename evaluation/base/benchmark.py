"""What every benchmark has in common: its names, a score, the counts that are always reported, and intervals.

Nothing here imports torch: scoring runs anywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np

from vargpt_lightning.utils.errors import UserError, meant

if TYPE_CHECKING:  # readers need what is here
    from vargpt_lightning.evaluation.formats.layouts import HubSource, Picture, Rows

Record = dict[str, Any]
"""A question with the column names of the benchmark's public mirror. Scoring never changes one."""

PROTOCOLS = ("lmms_eval", "official", "lenient")
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


@runtime_checkable
class Benchmark(Protocol):
    """A benchmark: a module with these names, all of which code uses; docs/add-a-benchmark.md shows one.

    Names that are optional have a Protocol of their own below, and a function that says what holds without them.
    """

    @property
    def NAME(self) -> str:
        """By which it is found; names its folder of data and of results."""

    @property
    def TITLE(self) -> str:
        """For people."""

    @property
    def HUB(self) -> HubSource | None:
        """Where its data are on the hub, if they are there."""

    @property
    def HEADLINE(self) -> str:
        """The key of `aggregate` that tables show."""

    @property
    def SCALE(self) -> float:
        """What tables multiply the headline by."""

    @property
    def MAX_NEW_TOKENS(self) -> int:
        """Of an answer, unless somebody says otherwise."""

    def load(self, path: Path, /, pictures: bool = True) -> Rows:
        """The questions; without pictures their files may be missing. Raises UserError: the data are others."""

    def record_id(self, record: Record, /) -> str:
        """The id of a question, which no other one has."""

    def pictures(self, record: Record, /) -> Sequence[Picture | None]:
        """A question's pictures in order; None for one that is missing."""

    def prompt(self, record: Record, /, style: str = "llava") -> str:
        """A question in the words of a style. Raises UserError: there is no such style."""

    def score(self, output: str, record: Record, /, protocol: str = "lmms_eval") -> Score:
        """What an output is worth; other arguments are options of `vargpt score`. Raises UserError: a bad key."""

    def aggregate(
        self, records: Sequence[Record], scores: Sequence[Score], /, protocol: str = "lmms_eval"
    ) -> dict[str, float]:
        """The figures, the headline first; an argument `allow_partial` is given where there is one."""


@runtime_checkable
class Grouped(Protocol):
    """A benchmark whose questions belong together in groups, which a limit keeps whole."""

    def group(self, record: Record, /) -> str: ...


@runtime_checkable
class OtherIds(Protocol):
    """A benchmark whose questions other projects' files of answers call something else."""

    def other_id(self, record: Record, /) -> str: ...


@runtime_checkable
class Labelled(Protocol):
    """A benchmark that says for people what a question is about."""

    def label(self, record: Record, /) -> str: ...


@runtime_checkable
class OwnProtocols(Protocol):
    """A benchmark with other scoring protocols than the usual three."""

    @property
    def KNOWN(self) -> Sequence[str]: ...


@runtime_checkable
class OwnRules(Protocol):
    """A benchmark whose results of some protocols are named otherwise: it has none of the others' rules."""

    @property
    def NAMED(self) -> Mapping[str, str]: ...


@runtime_checkable
class Referenced(Protocol):
    """A benchmark that says for each protocol which version of its authors' code the rule is."""

    @property
    def REFERENCES(self) -> Mapping[str, str]: ...


@runtime_checkable
class OfFile(Protocol):
    """A benchmark that a file describes, its data too."""

    @property
    def file(self) -> Path: ...


def group_of(benchmark: Benchmark) -> Callable[[Record], str] | None:
    """What names the group of a question; None where each question stands by itself."""
    return benchmark.group if isinstance(benchmark, Grouped) else None


def other_id_of(benchmark: Benchmark) -> Callable[[Record], str] | None:
    """What other projects call a question; None where they use its id."""
    return benchmark.other_id if isinstance(benchmark, OtherIds) else None


def label_of(benchmark: Benchmark) -> Callable[[Record], str] | None:
    """What says for people what a question is about; None where nothing does."""
    return benchmark.label if isinstance(benchmark, Labelled) else None


def known_protocols(benchmark: Benchmark) -> Sequence[str]:
    """The scoring protocols of a benchmark, the usual three unless it has a `KNOWN`."""
    return benchmark.KNOWN if isinstance(benchmark, OwnProtocols) else PROTOCOLS


def rule_of(benchmark: Benchmark, protocol: str) -> str:
    """The protocol that results of this one are named by: the same one, unless the benchmark's `NAMED` has another."""
    return benchmark.NAMED.get(protocol, protocol) if isinstance(benchmark, OwnRules) else protocol


def reference_of(benchmark: Benchmark, protocol: str) -> str:
    """Which version of the authors' code the rule is, by its `REFERENCES`; empty where nothing says so."""
    return benchmark.REFERENCES.get(protocol, "") if isinstance(benchmark, Referenced) else ""


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
