"""What the modules of all stages share: the model, the optimizer of the stage, the counts and logs of a step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from vargpt_lightning.models.vargpt import VARGPT
from vargpt_lightning.modules.optimizers import build_optimizer, build_schedule
from vargpt_lightning.modules.stage import Stage

Batch = Mapping[str, Any]


class StageModule(pl.LightningModule):
    """A stage's training of a VARGPT; which submodules are trained is the stage scheduler's affair.

    Args:
        vargpt: the model, shared by the modules of all stages.
        stage: the stage's settings.
        total_steps: optimizer steps of the stage, for the schedule.
    """

    # The tower of the default comes with its package; checkpoints need not carry it.
    strict_loading = False

    def __init__(self, vargpt: VARGPT, stage: Stage, total_steps: int) -> None:
        super().__init__()
        self.vargpt = vargpt
        self.stage = stage
        self.total_steps = total_steps
        self.last_counts: dict[str, int] = {"text_tokens": 0, "image_tokens": 0, "samples": 0}

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(self, self.stage.optimizer)
        schedule = build_schedule(optimizer, self.total_steps, self.stage.schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out what comes with a package: EfficientNet's weights."""
        if self.vargpt.config.vision.kind == "efficientnet_lite0":
            weights = checkpoint["state_dict"]
            for name in [name for name in weights if name.startswith("vargpt.vision_tower.")]:
                del weights[name]

    def log_losses(self, values: Mapping[str, Tensor | float | None], split: str, samples: int) -> None:
        """Log what there is of the values as `split/name`; validation values are means over samples."""
        for name, value in values.items():
            if value is not None:
                self.log(
                    f"{split}/{name}",
                    value.detach() if isinstance(value, Tensor) else value,
                    on_step=split == "train",
                    on_epoch=split != "train",
                    batch_size=max(samples, 1),
                    sync_dist=split != "train",
                    add_dataloader_idx=False,
                )


def share(correct: Tensor | int, total: Tensor | int) -> Tensor | None:
    """Return correct / total, None where there is nothing to count."""
    count = int(total)
    return torch.as_tensor(correct) / count if count else None
