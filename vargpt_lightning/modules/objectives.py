"""Objectives: the module of each kind of losses that a stage may name as its head."""

from __future__ import annotations

from typing import Any

from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.modules.base import StageModule
from vargpt_lightning.modules.generation import GenerationModule
from vargpt_lightning.modules.tokenizer import TokenizerModule
from vargpt_lightning.modules.understanding import UnderstandingModule
from vargpt_lightning.modules.unified import UnifiedModule
from vargpt_lightning.recipe.heads import HEADS, KIND
from vargpt_lightning.recipe.stage import Stage
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.plugins import called

OBJECTIVES: dict[str, type[StageModule]] = {
    "unified": UnifiedModule,
    "understanding": UnderstandingModule,
    "generation": GenerationModule,
    "tokenizer": TokenizerModule,
}


def module_of(model: VARGPT, stage: Stage, total_steps: int | None = None, **more: Any) -> StageModule:
    """Return the module of a stage's objective; arguments and errors are those of `VARGPTModule`."""
    return objective(stage.head)(model, stage, total_steps, **more)


def objective(head: str) -> type[StageModule]:
    """Return the module of a head: one of ours, or the class that an installed package's entry point names.

    Raises:
        UserError: there is no such objective, or an installed package's cannot be used.
    """
    entry = KIND.entry(head, HEADS)
    if entry is None:
        return OBJECTIVES[head]
    found = KIND.imported(entry)
    if not (isinstance(found, type) and issubclass(found, StageModule)):
        raise UserError(f"head {head!r}: {called(entry)} is no subclass of vargpt_lightning.modules.base.StageModule")
    return found
