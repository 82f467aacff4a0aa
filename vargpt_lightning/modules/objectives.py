"""Objectives: the module of each kind of losses that a stage may name as its head."""

from __future__ import annotations

from typing import Any

from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.modules.base import StageModule
from vargpt_lightning.modules.generation import GenerationModule
from vargpt_lightning.modules.tokenizer import TokenizerModule
from vargpt_lightning.modules.understanding import UnderstandingModule
from vargpt_lightning.modules.unified import UnifiedModule
from vargpt_lightning.recipe.stage import Stage

OBJECTIVES: dict[str, type[StageModule]] = {
    "unified": UnifiedModule,
    "understanding": UnderstandingModule,
    "generation": GenerationModule,
    "tokenizer": TokenizerModule,
}


def module_of(model: VARGPT, stage: Stage, total_steps: int | None = None, **more: Any) -> StageModule:
    """Return the module of a stage's objective; arguments and errors are those of `VARGPTModule`."""
    return OBJECTIVES[stage.head](model, stage, total_steps, **more)
