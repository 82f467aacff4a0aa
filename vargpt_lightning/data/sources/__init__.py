"""What corpora are read from, one file each; a new file with a `NAME` is all that a new source takes.

What a source has is said by `base.Source`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from vargpt_lightning.data.sources.base import Part, Rejected, Row, Source
from vargpt_lightning.utils.plugins import module_of, named_modules

__all__ = ["Part", "Rejected", "Row", "Source", "get", "names", "read_part"]


@cache
def names() -> tuple[str, ...]:
    """The names of all sources there are, sorted; none of them is imported."""
    return named_modules(__path__)


def get(name: str) -> Source:
    """Return a source's module by its name; raises UserError when there is none."""
    module: Source = module_of(__name__, name, names(), "source")
    return module


def read_part(part: Part) -> Iterator[Row]:
    """Read a piece of any source's input, in a fixed order."""
    return get(part.source).read_part(part)
