"""A step whose loss or gradient is no number: told with its records, and taken by nobody."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import tiny_stage
from tests.tiny_training import fit_stage, tiny_model
from vargpt_lightning.modules import base, unified
from vargpt_lightning.modules.finite import NonFiniteGuard
from vargpt_lightning.modules.optim.optimizers import build_optimizer
from vargpt_lightning.training.data.stage_data import StageData
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import read_jsonl


def broken_at(monkeypatch: pytest.MonkeyPatch, step: int, how: str) -> None:
    """Let the loss of a step, or the gradient alone, be no number."""
    loss_of = unified.UnifiedModule._loss

    def changed(module: Any, *args: Any) -> Any:
        loss = loss_of(module, *args)
        if module.training and module.global_step == step:
            if how == "gradient":
                loss.register_hook(lambda gradient: gradient * math.nan)
                return loss
            return loss * math.inf if how == "inf" else loss * math.nan
        return loss

    monkeypatch.setattr(unified.UnifiedModule, "_loss", changed)


def guard(monkeypatch: pytest.MonkeyPatch, policy: Any, file: Path) -> None:
    monkeypatch.setattr(base, "NonFiniteGuard", lambda: NonFiniteGuard(policy, file))


@pytest.mark.parametrize("how", ["nan", "inf", "gradient"])
def test_training_stops_and_names_the_records(
    how: str, stage_data: StageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard(monkeypatch, "stop", tmp_path / "nonfinite.jsonl")
    broken_at(monkeypatch, 1, how)
    stage = tiny_stage("base", data={"questions": 1}, decoder_alone=False, accumulate=2, batch_size=3)
    with pytest.raises(UserError, match=r"stage base, step 2: the loss or the gradient is not finite; the records"):
        fit_stage(stage_data, tiny_model(), stage, 3)
    (row,) = read_jsonl(tmp_path / "nonfinite.jsonl")
    batches = list(stage_data.train_loader(stage, 3, 1))[:2]
    ids = [f"{record.source}/{record.id}" for batch in batches for record in batch["rows"].records]
    assert row["records"] == ids and len(ids) == 6
    assert (row["step"], row["stage"], row["process"], len(row["losses"])) == (2, "base", 0, 2)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_step_is_passed_over_and_counted(
    optimizer: str, stage_data: StageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard(monkeypatch, "skip", tmp_path / "nonfinite.jsonl")
    broken_at(monkeypatch, 1, "nan")
    stage = tiny_stage("draw")
    stage.optimizer.name = optimizer  # type: ignore[assignment]
    stage.schedule.name = "constant"  # others have come to 0 at the last step
    weights: list[torch.Tensor] = []

    class Notes(base.pl.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            weights.append(pl_module.vargpt.visual_decoder.head.weight.detach().clone())

    fitted = fit_stage(stage_data, tiny_model(), stage, 3, [Notes()])
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[1], weights[2])
    assert fitted.module.guard.skipped == 1 and torch.isfinite(weights[2]).all()
    assert [row["step"] for row in read_jsonl(tmp_path / "nonfinite.jsonl")] == [2]
    assert sorted(fitted.values("train/grad_norm")) == [1, 3]


def test_a_norm_is_clipped_as_torch_does(stage_data: StageData) -> None:
    norms: list[float] = []

    class Norm(base.pl.Callback):
        def on_before_zero_grad(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            gradients = [each.grad for each in pl_module.parameters() if each.grad is not None]
            if gradients:
                norms.append(float(torch.nn.utils.get_total_norm(gradients)))

    stage = tiny_stage("draw")
    fitted = fit_stage(stage_data, tiny_model(), stage, 3, [Norm()], gradient_clip_val=0.01)
    assert all(value > 0.01 for value in fitted.values("train/grad_norm").values()), "as it was before"
    assert norms and norms == pytest.approx([0.01] * len(norms), rel=1e-3)
    assert build_optimizer(fitted.module, stage.optimizer) is not None
