"""How large the gradients are, before they are clipped."""

from __future__ import annotations

import lightning.pytorch as pl
import torch
from torch import nn
from torch.optim import Optimizer


class GradientNorm(pl.Callback):
    """Log the norm of all trained parameters' gradients as train/gradient_norm, every `log_every_n_steps` steps.

    It is taken before clipping, of the step that follows; of sharded gradients over all processes.
    """

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer) -> None:
        step = trainer.global_step
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if (step + 1) % every:
            return
        gradients = [each.grad for group in optimizer.param_groups for each in group["params"] if each.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        for logger in trainer.loggers:
            logger.log_metrics({"train/gradient_norm": float(torch.as_tensor(norm))}, step=step)
