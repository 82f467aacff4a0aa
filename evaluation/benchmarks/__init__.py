"""The benchmarks, one file each; a new file with a `NAME` is all that a new benchmark takes."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from vargpt_lightning.utils.plugins import module_of, named_modules

if TYPE_CHECKING:  # names are listed without what benchmarks need
    from vargpt_lightning.evaluation.base.benchmark import Benchmark


@cache
def names() -> tuple[str, ...]:
    """The names of all benchmarks there are, sorted; none of them is imported."""
    return named_modules(__path__)


def get(name: str) -> Benchmark:
    """Return a benchmark's module by its name.

    Raises:
        UserError: there is no such benchmark.
    """
    module: Benchmark = module_of(__name__, name, names(), "benchmark")
    return module
