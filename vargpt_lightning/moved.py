"""Old paths of modules that the pages and notebooks of earlier versions named: they work for one version, and warn."""

from __future__ import annotations

import importlib
import warnings
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MOVED = {
    "commands.loading": "inference.load",
    "errors": "utils.errors",
    "evaluation.benchmarks.base": "evaluation.base.benchmark",
    "evaluation.benchmarks.layouts": "evaluation.formats.layouts",
    "evaluation.benchmarks.yes_no": "evaluation.rules.yes_no",
    "evaluation.comparisons": "evaluation.analysis.comparisons",
    "evaluation.error_sheets": "evaluation.analysis.error_sheets",
    "evaluation.run_plots": "evaluation.analysis.run_plots",
    "evaluation.sheets": "evaluation.base.sheets",
    "evaluation.word_attention": "evaluation.analysis.word_attention",
    "models.config": "models.core.config",
    "models.towers": "models.vision",
}
"""Where each is now, both below the package."""


class _Loader:
    """Makes a module whose names are those of the module that took its place."""

    def __init__(self, new: str) -> None:
        self.new = new

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        message = f"{module.__name__} is {self.new} now; the old name goes with the next version"
        warnings.warn(message, DeprecationWarning, stacklevel=2)

        def look_up(name: str) -> Any:
            return getattr(importlib.import_module(self.new), name)

        module.__getattr__ = look_up  # type: ignore[method-assign]


def spec_of(name: str) -> ModuleSpec | None:
    """Return how an old name is imported; None for a name that never was."""
    package, _, old = name.partition(".")
    if old not in MOVED:
        return None
    loader: Any = _Loader(f"{package}.{MOVED[old]}")
    return ModuleSpec(name, loader)
