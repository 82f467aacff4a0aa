"""Samplers: how the codes of a scale are chosen from its logits. Ours is built in; installed packages add others by
entry points of the group `vargpt_lightning.samplers`. Imports no torch: experiments are read without.
"""

from __future__ import annotations

from typing import Any

from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.plugins import PluginKind, called

COLDEST, HOTTEST = 1e-4, 1e3  # temperatures that leave numbers of float32 when logits are divided by them
MOST_GUIDANCE = 100.0
DEFAULT = "default"
KIND = PluginKind("sampler", "vargpt_lightning.samplers")


def names() -> tuple[str, ...]:
    """The names of all samplers there are, ours first; none of them is imported."""
    return KIND.names((DEFAULT,))


def installed_sampler(name: str) -> Any:
    """Return the function that an installed package's entry point names, None for ours.

    Raises:
        UserError: there is no such sampler, or an installed package's cannot be used.
    """
    entry = KIND.entry(name, (DEFAULT,))
    if entry is None:
        return None
    found = KIND.imported(entry)
    if not callable(found):
        raise UserError(f"sampler {name!r}: {called(entry)} is no function; expected one such as {entry.module}:sample")
    return found


def described(name: str) -> str:
    """A sampler by its name and its package, for messages."""
    entry = KIND.entry(name, (DEFAULT,))
    return f"sampler {name!r}" if entry is None else f"sampler {name!r}: {called(entry)}"
