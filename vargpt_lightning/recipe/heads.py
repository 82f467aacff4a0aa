"""The objectives that a stage may name as its `head`: ours, and those of installed packages. Imports no torch.

An installed package adds its own by entry points of the group `vargpt_lightning.objectives`; the classes are found by
`modules/objectives.py`.
"""

from __future__ import annotations

from vargpt_lightning.utils.plugins import PluginKind

PREFERENCES = ("dpo", "cca")
"""Heads whose losses are made of log-probabilities beside those of the reference, the stage before."""
PAIRED = ("dpo",)
"""Those of them that train on pairs of answers."""
HEADS = ("unified", "understanding", "generation", "tokenizer", "grpo", *PREFERENCES)
KIND = PluginKind("head", "vargpt_lightning.objectives")


def names() -> tuple[str, ...]:
    """The names of all objectives there are, ours before others'; none of them is imported."""
    return KIND.names(HEADS)


def check_head(name: str) -> None:
    """Raise UserError unless there is one objective of that name; none is imported."""
    KIND.entry(name, HEADS)
