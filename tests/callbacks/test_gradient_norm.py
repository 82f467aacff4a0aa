"""The norm of the gradients, as it is before clipping."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from tests.training import Rows
from vargpt_lightning.callbacks.gradient_norm import GradientNorm


def test_the_norm_is_that_of_all_gradients_before_clipping(tiny: Any, make_trainer: Any, make_loader: Any) -> None:
    logger, seen = Rows(), []

    class Spy(pl.Callback):
        def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
            gradients = [each.grad.flatten() for each in module.parameters() if each.grad is not None]
            seen.append(float(torch.cat(gradients).norm()))

    trainer = make_trainer(
        [Spy(), GradientNorm()], logger=logger, log_every_n_steps=3, gradient_clip_val=1e-4, max_steps=6
    )
    trainer.fit(tiny(), make_loader())
    logged = {step: row["train/gradient_norm"] for step, row in logger.rows if "train/gradient_norm" in row}
    assert logged == {3: pytest.approx(seen[2]), 6: pytest.approx(seen[5])}
    assert min(logged.values()) > 1e-3
