"""The networks that see pictures, one file each; a new file with a `NAME` is all that a new tower takes.

What a tower has is said by `tower.Tower`.
"""

from __future__ import annotations

from functools import cache

from vargpt_lightning.models.vision.tower import Tower
from vargpt_lightning.utils.plugins import module_of, named_modules

NONE = "none"


@cache
def names() -> tuple[str, ...]:
    """The names of all towers there are, sorted; none of them is imported."""
    return named_modules(__path__)


def get(name: str) -> Tower:
    """Return a tower's module by its name; raises UserError when there is none."""
    module: Tower = module_of(__name__, name, names(), "vision.kind")
    return module
