"""The module of each kind of losses that a stage may name as its head."""

from __future__ import annotations

from vargpt_lightning.modules.base import StageModule
from vargpt_lightning.modules.generation import GenerationModule
from vargpt_lightning.modules.tokenizer import TokenizerModule
from vargpt_lightning.modules.understanding import UnderstandingModule
from vargpt_lightning.modules.unified import UnifiedModule

OBJECTIVES: dict[str, type[StageModule]] = {
    "unified": UnifiedModule,
    "understanding": UnderstandingModule,
    "generation": GenerationModule,
    "tokenizer": TokenizerModule,
}
