"""The LightningModule of a stage, by the objective that the stage names."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl

from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.models.core.config import VARGPTConfig
from vargpt_lightning.modules.base import StageModule
from vargpt_lightning.modules.objectives import module_of
from vargpt_lightning.recipe.stage import Stage


class VARGPTModule(pl.LightningModule):
    """Trains a VARGPT as a stage says: making one gives the module of the stage's objective (`stage.head`).

    Subclass the module of an objective, such as `UnifiedModule`, rather than this one.

    Args:
        model: the model, or the configuration of a new one.
        stage: the stage; what it trains is frozen and thawed by `StageScheduler`. Of several stages the first, whose
            module that callback replaces when it goes on.
        total_steps: optimizer steps of the stage, for the schedule; None takes the trainer's `max_steps`, or the data
            module's `total_steps`.
        guard: looks at losses and gradients; None stops training at one that is not finite.
        first_weights: of a model that gets its memory when it is sharded.

    Raises:
        UserError: the stage asks for what the model cannot give.
    """

    def __new__(  # type: ignore[misc]
        cls, model: VARGPT | VARGPTConfig, stage: Stage | list[Stage], total_steps: int | None = None, **more: Any
    ) -> StageModule:
        made = VARGPT(model) if isinstance(model, VARGPTConfig) else model
        return module_of(made, stage if isinstance(stage, Stage) else stage[0], total_steps, **more)

    def __init__(
        self, model: VARGPT | VARGPTConfig, stage: Stage | list[Stage], total_steps: int | None = None
    ) -> None: ...
