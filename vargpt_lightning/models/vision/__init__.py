"""The networks that see pictures, one file each; a new file with a `NAME` is all that a new tower takes.

What a tower has is said by `tower.Tower`. An installed package adds its own by entry points of the group
`vargpt_lightning.towers`.
"""

from __future__ import annotations

from vargpt_lightning.models.vision.tower import Tower, published_of
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


def of_model_type(model_type: str) -> str | None:
    """Return the name of the tower that a config.json of transformers with this `model_type` has; None for none."""
    for name in names():
        published = published_of(get(name))
        if published is not None and model_type in published.model_types:
            return name
    return None


def published_names() -> list[str]:
    """The names of the towers that transformers' folders hold."""
    return [name for name in names() if published_of(get(name)) is not None]
