"""The networks that see pictures, one file each; a new file with a `NAME` is all that a new tower takes.

What a tower has is said by `tower.Tower`. An installed package adds its own by entry points of the group
`vargpt_lightning.towers`.
"""

from __future__ import annotations

from vargpt_lightning.models.vision.tower import Tower
from vargpt_lightning.utils.plugins import PluginKind, named_modules

NONE = "none"
KIND = PluginKind("vision.kind", "vargpt_lightning.towers", reserved=(NONE,))


def names() -> tuple[str, ...]:
    """The names of all towers there are, ours before others'; none of them is imported."""
    return KIND.names(named_modules(__path__))


def get(name: str) -> Tower:
    """Return a tower's module by its name.

    Raises:
        UserError: there is no such tower, or an installed package's cannot be used.
    """
    module: Tower = KIND.module(__name__, name, named_modules(__path__), Tower)
    return module
