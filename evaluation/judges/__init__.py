"""Judges of drawings, one file each; a new file with a `NAME` is all that a new judge takes.

What a judge has is said by `base.judge`. An installed package adds its own by entry points of the group
`vargpt_lightning.judges`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vargpt_lightning.utils.plugins import PluginKind, named_modules

if TYPE_CHECKING:  # names are listed without what judges need
    from vargpt_lightning.evaluation.base.judge import Judge

KIND = PluginKind("judge", "vargpt_lightning.judges")


def names() -> tuple[str, ...]:
    """The names of all judges there are, ours before others'; none of them is imported."""
    return KIND.names(named_modules(__path__))


def get(name: str) -> Judge:
    """Return a judge's module by its name.

    Raises:
        UserError: there is no such judge, or an installed package's cannot be used.
    """
    from vargpt_lightning.evaluation.base.judge import Judge

    module: Judge = KIND.module(__name__, name, named_modules(__path__), Judge)
    return module
