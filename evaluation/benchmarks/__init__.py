"""The benchmarks, one file each; a new file with a `NAME` is all that a new benchmark takes."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from vargpt_lightning.errors import UserError

_SHARED = {
    "base",
    "hub",
    "layouts",
    "layouts_parquet",
    "layouts_rows",
    "layouts_text",
    "letter_lenient",
    "letter_rules",
    "letters",
    "mmmu_answers",
    "vqa_accuracy",
    "vqa_files",
    "vqa_lenient",
    "vqa_normalise",
    "yes_no",
}  # what the benchmarks share; no benchmarks themselves


def names() -> tuple[str, ...]:
    """The names of all benchmarks there are, sorted."""
    found = {module.name for module in pkgutil.iter_modules(__path__)}
    return tuple(sorted(found - _SHARED))


def get(name: str) -> ModuleType:
    """Return a benchmark's module by its name.

    Raises:
        UserError: there is no such benchmark.
    """
    if name not in names():
        raise UserError(f"benchmark: {name!r}; there are {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}")
