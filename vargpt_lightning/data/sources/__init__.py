"""What corpora are read from, one file each; a new file with a `NAME` is all that a new source takes.

A source has `NAME`, `parts(path, *, pictures=None, **options)`, `read_part(part)` and
`read(path, *, pictures=None, **options)`: see `base`.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

from vargpt_lightning.data.sources.base import Part, Rejected, Row
from vargpt_lightning.errors import UserError

__all__ = ["Part", "Rejected", "Row", "get", "names", "read_part"]

_NAME = re.compile(r"^NAME\b.*=", re.MULTILINE)


@cache
def names() -> tuple[str, ...]:
    """The names of all sources there are, sorted; none of them is imported."""
    files = [file for folder in __path__ for file in Path(folder).glob("*.py")]
    return tuple(sorted({file.stem for file in files if _NAME.search(file.read_text(encoding="utf-8"))}))


def get(name: str) -> ModuleType:
    """Return a source's module by its name; raises UserError when there is none."""
    if name not in names():
        raise UserError(f"source: {name!r}; there are {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}")


def read_part(part: Part) -> Iterator[Row]:
    """Read a piece of any source's input, in a fixed order."""
    rows: Iterator[Row] = get(part.source).read_part(part)
    return rows
