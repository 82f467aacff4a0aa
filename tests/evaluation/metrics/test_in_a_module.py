"""The metrics in somebody's own LightningModule, logged by `self.log` and taken apart by `MetricCollection`."""

from __future__ import annotations

import pickle
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MetricCollection

from vargpt_lightning.evaluation import metrics
from vargpt_lightning.evaluation.metrics import (
    CLIPScore,
    Features,
    FrechetInceptionDistance,
    Given,
    IdentificationRate,
    KernelInceptionDistance,
    PrecisionRecall,
)


class Colours(Features):
    """Mean and spread of each colour: a network of one's own."""

    name, size = "colours", 6

    def __call__(self, pictures_B3HW: torch.Tensor) -> torch.Tensor:
        flat_B3P = pictures_B3HW.float().flatten(2) / 255
        return torch.cat([flat_B3P.mean(2), flat_B3P.std(2)], 1)


def pictures(count: int, seed: int) -> torch.Tensor:
    torch.manual_seed(seed)
    return torch.rand(count, 1, 1, 1) * torch.rand(count, 3, 8, 8)


class Own(pl.LightningModule):
    """Learns nothing, and validates drawings against real pictures."""

    def __init__(self, gallery: torch.Tensor) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.fid = FrechetInceptionDistance(Colours())
        self.kid = KernelInceptionDistance(Colours(), subset_size=10)
        self.rate = IdentificationRate(gallery, Colours())
        self.clip = CLIPScore()

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        return self.weight * 2

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        real, drawn, places = batch
        for metric in (self.fid, self.kid):
            metric.update(real, real=True)
            metric.update(drawn, real=False)
        self.rate(drawn, places)
        self.clip.add(drawn.mean(dim=(1, 2, 3)))
        self.log_dict({"val/fid": self.fid, "val/kid": self.kid, "val/clip": self.clip})
        self.log("val/rate", self.rate, on_step=True, on_epoch=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_lightning_logs_computes_and_resets_them(tmp_path: Path) -> None:
    real, drawn = pictures(20, 1), pictures(20, 2)
    drawn[::2] = real[::2]
    module = Own(real)
    loader = DataLoader(TensorDataset(real, drawn, torch.arange(20)), batch_size=7)
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, loader, loader)
    fid, kid = FrechetInceptionDistance(Colours()), KernelInceptionDistance(Colours(), subset_size=10)
    for metric in (fid, kid):
        metric.update(real, real=True)
        metric.update(drawn, real=False)
    logged = {name: value.item() for name, value in trainer.callback_metrics.items()}
    assert logged["val/fid"] == pytest.approx(fid.compute().item(), rel=1e-4), "of one epoch, not of both"
    assert logged["val/kid"] == pytest.approx(kid.compute().item(), rel=1e-4)
    assert logged["val/rate_epoch"] >= 0.5 and logged["val/clip"] == pytest.approx(drawn.mean().item(), rel=1e-5)
    assert not module.fid.update_called and module.fid.drawn_count == 0
    assert list(module.state_dict()) == ["weight"], "nor does a checkpoint hold a network or features"


def test_a_collection_keeps_the_features_of_equal_states_once() -> None:
    together = MetricCollection({name: PrecisionRecall(Given(6), figure=name) for name in ("precision", "recall")})  # type: ignore[arg-type,misc]
    torch.manual_seed(0)
    for _ in range(3):
        together.update(torch.randn(9, 6), real=True)
        together.update(torch.randn(9, 6) + 0.5, real=False)
    found = together.compute()
    assert 0 < found["precision"] < 1 and 0 < found["recall"] < 1
    assert list(together.compute_groups.values()) == [["precision", "recall"]]


def test_copies_and_pickles_count_on() -> None:
    metric = CLIPScore()
    metric.add([1.0, 2.0])
    assert metric.update_called and metric.compute() == 1.5
    for again in (metric.clone(), pickle.loads(pickle.dumps(metric))):
        again.add([6.0])
        assert (metric.compute(), again.compute()) == (1.5, 3.0)


def test_every_name_is_there_and_says_what_it_measures() -> None:
    for name in metrics._LAZY:
        found = getattr(metrics, name)
        assert found.__doc__, name
        if not issubclass(found, Features):
            assert "(B, 3, H, W)" in found.__doc__ and "value_range" in found.__doc__, name
            assert found.higher_is_better is not None and found.full_state_update is False, name
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        metrics.Nothing  # noqa: B018
