"""Benchmarks of prompt-following, one file each; a new file with a `NAME` is all that a new one takes.

What one has is said by `base.prompt_benchmark`; who looks at pictures belongs in `evaluation.systems`. An installed
package adds its own by entry points of the group `vargpt_lightning.prompt_benchmarks`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vargpt_lightning.utils.plugins import PluginKind, named_modules

if TYPE_CHECKING:  # names are listed without what benchmarks need
    from vargpt_lightning.evaluation.base.prompt_benchmark import PromptBenchmark

KIND = PluginKind("benchmark of prompt-following", "vargpt_lightning.prompt_benchmarks")


def names() -> tuple[str, ...]:
    """The names of all there are, ours before others'; none of them is imported."""
    return KIND.names(named_modules(__path__))


def get(name: str) -> PromptBenchmark:
    """Return a benchmark's module by its name.

    Raises:
        UserError: there is no such benchmark, or an installed package's cannot be used.
    """
    from vargpt_lightning.evaluation.base.prompt_benchmark import PromptBenchmark

    module: PromptBenchmark = KIND.module(__name__, name, named_modules(__path__), PromptBenchmark)
    return module
