"""What corpora are read from, one file each; a new file with a `NAME` is all that a new source takes.

What a source has is said by `base.Source`. An installed package adds its own by entry points of the group
`vargpt_lightning.sources`.
"""

from __future__ import annotations

from collections.abc import Iterator

from vargpt_lightning.data.sources.base import Part, Rejected, Row, Source
from vargpt_lightning.utils.plugins import PluginKind, named_modules

__all__ = ["Part", "Rejected", "Row", "Source", "get", "names", "read_part"]

KIND = PluginKind("source", "vargpt_lightning.sources")


def names() -> tuple[str, ...]:
    """The names of all sources there are, ours before others'; none of them is imported."""
    return KIND.names(named_modules(__path__))


def get(name: str) -> Source:
    """Return a source's module by its name.

    Raises:
        UserError: there is no such source, or an installed package's cannot be used.
    """
    module: Source = KIND.module(__name__, name, named_modules(__path__), Source)
    return module


def read_part(part: Part) -> Iterator[Row]:
    """Read a piece of any source's input, in a fixed order."""
    return get(part.source).read_part(part)
