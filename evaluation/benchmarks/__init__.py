"""The benchmarks, one file each; a new file with a `NAME` is all that a new benchmark takes.

`of_columns` makes one of a YAML file that names columns.

An installed package adds its own by entry points of the group `vargpt_lightning.benchmarks`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.plugins import PluginKind, named_modules

if TYPE_CHECKING:  # names are listed without what benchmarks need
    from vargpt_lightning.evaluation.base.benchmark import Benchmark

KIND = PluginKind("benchmark", "vargpt_lightning.benchmarks", reserved=("all",))


def names() -> tuple[str, ...]:
    """The names of all benchmarks there are, ours before others'; none of them is imported."""
    return KIND.names(named_modules(__path__))


def get(name: str) -> Benchmark:
    """Return a benchmark's module by its name, or what a YAML file of columns describes by the file's.

    Raises:
        UserError: there is no such benchmark, an installed package's cannot be used, or the file describes none.
    """
    if name.endswith((".yaml", ".yml")):
        return _of_columns(name)
    from vargpt_lightning.evaluation.base.benchmark import Benchmark

    module: Benchmark = KIND.module(__name__, name, named_modules(__path__), Benchmark)
    return module


def of_data(name: str, data: Path | str) -> Benchmark:
    """Return a benchmark by its name, where its data may be the YAML file that describes it; raises as `get` does."""
    return get(str(data)) if str(data).endswith((".yaml", ".yml")) else get(name)


def _of_columns(file: str) -> Benchmark:
    from vargpt_lightning.evaluation.benchmarks.of_columns import read_columns

    found = read_columns(Path(file))
    if found.NAME in (*names(), *KIND.reserved):
        raise UserError(f"{file}: the name {found.NAME!r} is that of another benchmark; expected one of its own")
    return found
