"""Where the rewards of a stage that learns from its own drawings come from: the scorers of evaluation."""

from __future__ import annotations

from vargpt_lightning.evaluation.systems.scorers import checked_name, find_scorer
from vargpt_lightning.modules.base import StageModule
from vargpt_lightning.modules.preferences.grpo import GRPOModule
from vargpt_lightning.recipe.stage import Stage
from vargpt_lightning.utils.errors import UserError


def check_reward(stage: Stage) -> None:
    """Refuse a reward that there is not, before anything is trained.

    Raises:
        UserError: there is no scorer of this name.
    """
    if stage.grpo is not None:
        try:
            checked_name(stage.grpo.reward)
        except UserError as error:
            raise UserError(f"stages.{stage.name}.grpo.reward: {error}") from error


def give_rewards(module: StageModule) -> None:
    """Let a module that wants rewards find them."""
    if isinstance(module, GRPOModule):
        module.scorers = find_scorer
