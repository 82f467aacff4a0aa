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
Values = Mapping[str, Tensor | float | None]


class StageModule(pl.LightningModule):
    """A stage's training of a VARGPT; which submodules are trained is the stage scheduler's affair.

    Training values are logged as means over the samples or tokens since the row before, every `log_every_n_steps` steps
    and after the last one; what had nothing to count in between has no value in the row. They are rank 0's.

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
        self._sums: dict[str, Tensor] = {}
        self._weights: dict[str, int] = {}

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(self, self.stage.optimizer)
        schedule = build_schedule(optimizer, self.total_steps, self.stage.schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out a tower that is not trained: it comes with its package, or with the stage before."""
        tower = self.vargpt.vision_tower
        if tower is not None and not any(parameter.requires_grad for parameter in tower.parameters()):
            weights = checkpoint["state_dict"]
            for name in [name for name in weights if name.startswith("vargpt.vision_tower.")]:
                del weights[name]
        quantizer = self.vargpt.image_tokenizer.quantize
        checkpoint["code_hits"] = [quantizer.hit_updates, quantizer.vectors_per_scale]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the record of the codes' hits where it was; its buffer alone would be mixed as at its beginning."""
        quantizer = self.vargpt.image_tokenizer.quantize
        if "code_hits" in checkpoint:
            quantizer.hit_updates, quantizer.vectors_per_scale = checkpoint["code_hits"]

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step the schedule and write the row of values: the one hook that follows each optimizer step and no other."""
        rate = scheduler.get_last_lr()[0]
        super().lr_scheduler_step(scheduler, metric)
        step = self.global_step
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if step % every == 0 or step >= self.total_steps:
            self._write_row({"train/lr": rate}, step)

    def log_losses(
        self, values: Values, split: str, samples: int, tokens: Mapping[str, Tensor | int] | None = None
    ) -> None:
        """Log what there is of a batch's values as `split/name`.

        Args:
            values: means over the batch; None for what the batch has nothing of.
            split: "train" or "val".
            samples: what values are weighted with that are not of tokens.
            tokens: "text" and "image" to their numbers in the batch: the weights of `text_...` and `image_...`.
        """
        for name, value in values.items():
            if value is None:
                continue
            weight = max(int((tokens or {}).get(name.split("_")[0], samples)), 1)
            detached = value.detach() if isinstance(value, Tensor) else torch.tensor(float(value))
            if split != "train":
                self.log(f"{split}/{name}", detached, on_epoch=True, batch_size=weight, sync_dist=True)
                continue
            key = f"train/{name}"
            self.log(key, detached, on_step=True, on_epoch=False, logger=False, batch_size=weight)  # for the bar
            self._sums[key] = self._sums.get(key, 0.0) + detached.float() * weight
            self._weights[key] = self._weights.get(key, 0) + weight

    def _write_row(self, row: dict[str, float], step: int) -> None:
        row |= {name: float(total) / self._weights[name] for name, total in self._sums.items()}
        self._sums.clear()
        self._weights.clear()
        for logger in self.trainer.loggers:
            logger.log_metrics(row, step=step - 1)  # Lightning counts steps from 0


def samples_of(batch: Batch) -> int:
    """Return how many records a batch has: as many as rows, unless it says that they are packed."""
    return int(batch.get("samples", len(batch["input_ids"])))


def share(correct: Tensor | int, total: Tensor | int) -> Tensor | None:
    """Return correct / total, None where there is nothing to count."""
    count = int(total)
    return torch.as_tensor(correct) / count if count else None
