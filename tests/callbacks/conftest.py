"""A module of two layers with dropout, and a trainer for it that makes no noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


class Tiny(pl.LightningModule):
    """Regression with dropout; `frozen` is not trained."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.trained = nn.Linear(4, 1)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        for parameter in self.parameters():
            parameter.data.uniform_(-0.5, 0.5, generator=generator)
        self.last_counts = {"text_tokens": 0, "image_tokens": 0, "samples": 0}
        self.validated: list[Tensor] = []

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        loss = (self.trained(nn.functional.dropout(self.frozen(x), 0.5)) - y).square().mean()
        self.last_counts = {"text_tokens": 7 * len(x), "image_tokens": 3 * len(x), "samples": len(x)}
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.validated.append(self.trained.weight.detach().clone())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.trained.parameters(), lr=0.05)


def loader(batches: int = 12, size: int = 2, same: bool = False) -> DataLoader[Any]:
    """Batches that are all the `same` make a resumed epoch independent of where a plain loader starts again."""
    generator = torch.Generator().manual_seed(1)
    x = (
        torch.randn(size, 4, generator=generator).repeat(batches, 1)
        if same
        else torch.randn(batches * size, 4, generator=generator)
    )
    return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=size)


def trainer(callbacks: list[pl.Callback], **settings: Any) -> pl.Trainer:
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "enable_progress_bar": any(isinstance(callback, pl.callbacks.ProgressBar) for callback in callbacks),
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
    }
    return pl.Trainer(callbacks=callbacks, **(defaults | settings))


@pytest.fixture
def make_trainer() -> Callable[..., pl.Trainer]:
    return trainer


@pytest.fixture
def make_loader() -> Callable[..., DataLoader[Any]]:
    return loader


@pytest.fixture
def tiny() -> type[Tiny]:
    return Tiny


@pytest.fixture
def stop_after() -> Callable[[int], pl.Callback]:
    """A callback that raises after so many batches of its fit, as a kill would end it."""

    class Stop(pl.Callback):
        def __init__(self, batches: int) -> None:
            self.batches = batches

        def on_train_batch_end(self, *args: Any) -> None:
            self.batches -= 1
            if self.batches == 0:
                raise RuntimeError("killed")

    return Stop
