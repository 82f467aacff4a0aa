"""The benchmarks, one file each; a new file with a `NAME` is all that a new benchmark takes.

An installed package adds its own by entry points of the group `vargpt_lightning.benchmarks`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vargpt_lightning.utils.plugins import PluginKind, named_modules

if TYPE_CHECKING:  # names are listed without what benchmarks need
    from vargpt_lightning.evaluation.base.benchmark import Benchmark

KIND = PluginKind("benchmark", "vargpt_lightning.benchmarks", reserved=("all",))


def names() -> tuple[str, ...]:
    """The names of all benchmarks there are, ours before others'; none of them is imported."""
    return KIND.names(named_modules(__path__))


def get(name: str) -> Benchmark:
    """Return a benchmark's module by its name.

    Raises:
        UserError: there is no such benchmark, or an installed package's cannot be used.
    """
    from vargpt_lightning.evaluation.base.benchmark import Benchmark

    module: Benchmark = KIND.module(__name__, name, named_modules(__path__), Benchmark)
    return module
