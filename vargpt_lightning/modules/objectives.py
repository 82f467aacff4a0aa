"""Objectives: the module of each kind of losses that a stage may name as its head, or by its class_path."""

from __future__ import annotations

import inspect
from typing import Any, Protocol

from vargpt_lightning.checkpoints.deferred import DeferredWeights
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.modules.base import StageModule
from vargpt_lightning.modules.finite import NonFiniteGuard
from vargpt_lightning.modules.generation import GenerationModule
from vargpt_lightning.modules.preferences.cca import CcaModule
from vargpt_lightning.modules.preferences.dpo import DpoModule
from vargpt_lightning.modules.preferences.grpo import GRPOModule
from vargpt_lightning.modules.tokenizer import TokenizerModule
from vargpt_lightning.modules.understanding import UnderstandingModule
from vargpt_lightning.modules.unified import UnifiedModule
from vargpt_lightning.recipe.heads import HEADS, KIND
from vargpt_lightning.recipe.stage import Stage
from vargpt_lightning.utils.class_paths import arguments_of, installed_class
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.plugins import called

BASE = "vargpt_lightning.modules.base.StageModule"


class Objective(Protocol):
    """How an objective's class is called; init_args of a stage's `objective` are more keyword arguments."""

    def __call__(
        self,
        vargpt: VARGPT,
        stage: Stage,
        total_steps: int | None = None,
        *,
        guard: NonFiniteGuard | None = None,
        first_weights: DeferredWeights | None = None,
    ) -> StageModule:
        """Return the module; arguments as for `StageModule`."""


OBJECTIVES: dict[str, type[StageModule]] = {
    "unified": UnifiedModule,
    "understanding": UnderstandingModule,
    "generation": GenerationModule,
    "tokenizer": TokenizerModule,
    "grpo": GRPOModule,
    "dpo": DpoModule,
    "cca": CcaModule,
}
OURS = tuple(inspect.signature(StageModule).parameters)


def module_of(model: VARGPT, stage: Stage, total_steps: int | None = None, **more: Any) -> StageModule:
    """Return the module of a stage's objective; arguments and errors are those of `VARGPTModule`."""
    kind, arguments = check_objective(stage)
    return kind(model, stage, total_steps, **more, **arguments)


def check_objective(stage: Stage) -> tuple[type[StageModule], dict[str, Any]]:
    """Return the class of a stage's objective and its own arguments; nothing is made.

    Raises:
        UserError: there is no such class, it cannot be used, or it does not take the arguments.
    """
    if stage.objective is None:
        return objective(stage.head), {}
    key, path = f"stages.{stage.name}.objective", stage.objective["class_path"]
    kind: type[StageModule] = installed_class(stage.objective, key, StageModule, BASE)
    arguments = arguments_of(stage.objective, key)
    if taken := [name for name in arguments if name in OURS]:
        raise UserError(f"{key}: init_args of {path} have {taken[0]!r}, which every objective is given; leave it out")
    try:
        inspect.signature(kind).bind(**dict.fromkeys(OURS), **arguments)
    except TypeError as error:
        raise UserError(f"{key}: {path}: {error}") from error
    return kind, arguments


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
        raise UserError(f"head {head!r}: {called(entry)} is no subclass of {BASE}")
    return found
