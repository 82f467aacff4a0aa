"""The benchmarks, one file each; a new file with a `NAME` is all that a new benchmark takes."""

from __future__ import annotations

import importlib
import re
from functools import cache
from pathlib import Path
from types import ModuleType

from vargpt_lightning.errors import UserError

_NAME = re.compile(r"^NAME\b.*=", re.MULTILINE)


@cache
def names() -> tuple[str, ...]:
    """The names of all benchmarks there are, sorted; none of them is imported."""
    files = [file for folder in __path__ for file in Path(folder).glob("*.py")]
    return tuple(sorted({file.stem for file in files if _NAME.search(file.read_text(encoding="utf-8"))}))


def get(name: str) -> ModuleType:
    """Return a benchmark's module by its name.

    Raises:
        UserError: there is no such benchmark.
    """
    if name not in names():
        raise UserError(f"benchmark: {name!r}; there are {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}")
