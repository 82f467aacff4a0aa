"""Direct preference optimisation: of two answers to one prompt, the chosen one becomes likelier than the other.

Legend: B rows, N pairs.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.models.core.losses import LogProbabilities
from vargpt_lightning.modules.base import Batch
from vargpt_lightning.modules.preferences.base import PreferenceModule
from vargpt_lightning.modules.preferences.losses import dpo_losses
from vargpt_lightning.recipe.preferences import DpoSettings
from vargpt_lightning.recipe.stage import Stage


class DpoModule(PreferenceModule):
    """DPO (`dpo_losses`) on pairs of answers, texts or pictures, and a small loss of the chosen ones themselves.

    A batch has the chosen answers in rows 0, 2, … and the rejected ones in rows 1, 3, …. A reward is beta times the
    log-ratio of an answer.
    """

    def __init__(self, vargpt: VARGPT, stage: Stage, total_steps: int | None = None, **more: Any) -> None:
        super().__init__(vargpt, stage, total_steps, **more)
        self.settings = stage.dpo or DpoSettings()

    def mean_names(self) -> list[str]:
        rewards = ["reward_margin", "reward_chosen", "reward_rejected"]
        return ["preference_loss", "pair_accuracy", *rewards, "supervised_loss"]

    def scores(self, found: LogProbabilities) -> Tensor:
        return found.of_answers(mean=self.settings.log_probability == "mean")

    def depends_on(self) -> dict[str, Any]:
        return {**super().depends_on(), "log_probability": self.settings.log_probability}

    def own_rows(self, rows: Batch) -> int:
        return 2 * super().own_rows(rows)

    def draw_keys(self, keys: list[bytes]) -> list[bytes]:
        """Both answers of a pair are changed alike."""
        return [key for key in keys[::2] for _ in range(2)]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        return self.part_of_step(batch, *self._losses(batch, "train"))

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._losses(batch, "val")

    def _losses(self, batch: Batch, split: str) -> tuple[Tensor, Tensor]:
        """The mean loss of a batch's pairs, which is logged, and the score of idle rows."""
        rows = self.rows(batch)
        output, now_B, then_B = self.compared(rows)
        count = self.own_rows(rows)
        chosen_N, rejected_N = (now_B - then_B)[:count].view(-1, 2).unbind(1)
        preference = dpo_losses(chosen_N, rejected_N, self.settings.beta).mean()
        supervised = -self.found(output).of_answers(mean=True)[:count:2].mean()
        margins_N = self.settings.beta * (chosen_N - rejected_N).detach()
        logged: dict[str, Tensor | float | None] = {
            "preference_loss": preference,
            "pair_accuracy": (margins_N > 0).double().mean(),
            "reward_margin": margins_N.mean(),
            "reward_chosen": self.settings.beta * chosen_N.mean(),
            "reward_rejected": self.settings.beta * rejected_N.mean(),
            "supervised_loss": supervised,
        }
        self.log_losses(logged, split, count // 2)
        if split == "train":
            self.count(batch, output, count // 2)
        return preference + self.settings.supervised * supervised, now_B[count:].sum()
