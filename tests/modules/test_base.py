"""What a module logs and what its checkpoints hold."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from tests.tiny import tiny_stage
from tests.tiny_training import Rows, fit_stage, tiny_model
from vargpt_lightning.callbacks.checkpoint_io import LastCheckpoint
from vargpt_lightning.modules.base import share
from vargpt_lightning.modules.unified import UnifiedModule
from vargpt_lightning.recipe.stage import OptimizerConfig, ScheduleConfig
from vargpt_lightning.training.data.stage_data import StageData


class Counts(pl.Callback):
    """Notes the counts and the losses of each batch."""

    def __init__(self) -> None:
        self.seen: list[tuple[dict[str, int], dict[str, float]]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, *args: Any) -> None:
        values = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("train/")}
        self.seen.append((dict(pl_module.last_counts), values))


def test_a_row_is_the_mean_over_all_tokens_since_the_row_before(stage_data: StageData) -> None:
    """Batches of text and of drawings take turns; each loss counts its own tokens, wherever they were."""
    counts = Counts()
    stage = tiny_stage("base", accumulate=1, batch_size=2, data={"questions": 1, "pictures": 1})
    fitted = fit_stage(stage_data, tiny_model(), stage, 6, [counts], log_every_n_steps=4)
    assert [step for step, _ in fitted.rows] == [4, 6], "and one after the last step"
    for first, last, step in ((0, 4, 4), (4, 6, 6)):
        for kind in ("text", "image"):
            parts = [
                (n[f"{kind}_tokens"], v[f"train/{kind}_loss"])
                for n, v in counts.seen[first:last]
                if n[f"{kind}_tokens"]
            ]
            mean = sum(tokens * loss for tokens, loss in parts) / sum(tokens for tokens, _ in parts)
            assert fitted.values(f"train/{kind}_loss")[step] == pytest.approx(mean, rel=1e-5)


def test_tokens_weigh_the_losses_of_tokens_and_samples_all_else(stage_data: StageData) -> None:
    class Own(UnifiedModule):
        """One that logs something of its own."""

        def mean_names(self) -> list[str]:
            return [*super().mean_names(), "l1"]

    module = Own(tiny_model(), tiny_stage("draw"), 4)
    weights: list[tuple[str, int]] = []
    module.log = lambda name, value, **how: weights.append((name, how["batch_size"]))  # type: ignore[method-assign]
    rows = Rows()
    module._trainer = SimpleNamespace(loggers=[rows])  # type: ignore[assignment]
    for split in ("train", "val"):
        module.log_losses({"text_loss": 1.0, "l1": 1.0, "image_loss": None}, split, 2, {"text": 30, "image": 0})
        module.log_losses({"text_loss": 5.0, "l1": 5.0}, split, 2, {"text": torch.tensor(10)})
    assert [weight for name, weight in weights if name.endswith("text_loss")] == [30, 10] * 2
    assert [weight for name, weight in weights if name.endswith("l1")] == [2, 2] * 2
    module._write_row({}, 4)
    assert rows.rows == [(4, {"train/text_loss": 2.0, "train/l1": 3.0})]
    module._write_row({}, 6)
    assert rows.rows[1:] == [(6, {})], "each row begins afresh"
    with pytest.raises(ValueError, match=r"no mean is kept of l2; expected some of text_loss, .*, l1, grad_norm"):
        module.log_losses({"l2": 1.0}, "train", 2)


def test_what_a_row_has_nothing_of_is_left_out(stage_data: StageData) -> None:
    """Not the last value there was, which Lightning's own logging repeats."""
    stage = tiny_stage("base", accumulate=1, data={"questions": 1, "pictures": 1})
    rows = fit_stage(stage_data, tiny_model(), stage, 6).rows
    kinds = [{name for name in row if name.endswith("_loss")} for _, row in rows]
    assert {frozenset(names) for names in kinds} == {frozenset({"train/text_loss"}), frozenset({"train/image_loss"})}


def test_the_learning_rate_of_a_step_is_logged_with_it(stage_data: StageData) -> None:
    schedule = ScheduleConfig("linear", warmup=0, final=0.0)
    stage = tiny_stage("draw", optimizer=OptimizerConfig(lr=0.01), schedule=schedule)
    rates = fit_stage(stage_data, tiny_model(), stage, 4).values("train/lr")
    assert rates == pytest.approx({1: 0.01, 2: 0.02 / 3, 3: 0.01 / 3, 4: 0.0})


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_last_rate_is_the_final_one_also_when_training_is_taken_up(
    stage_data: StageData, tmp_path: Path, accumulate: int
) -> None:
    schedule = ScheduleConfig("cosine", warmup=1, final=0.5)
    optimizer = OptimizerConfig(lr=0.01)
    stage = tiny_stage(
        "draw", optimizer=optimizer, schedule=schedule, accumulate=accumulate, steps=None, epochs=4, batch_size=6
    )
    total = stage_data.order.total_steps(stage, 1)
    checkpoint = LastCheckpoint(tmp_path / "last.ckpt", seconds=0)
    whole = fit_stage(stage_data, tiny_model(), stage, total).values("train/lr")
    assert list(whole)[-1] == total and whole[total] == 0.01 * 0.5 < whole[total - 1]
    fit_stage(stage_data, tiny_model(), stage, total, [checkpoint], max_steps=3)
    rest = fit_stage(stage_data, tiny_model(), stage, total, checkpoint=checkpoint.path).values("train/lr")
    assert rest == {step: rate for step, rate in whole.items() if step > 2}


def test_validation_is_logged_apart(stage_data: StageData) -> None:
    settings = {"limit_val_batches": 1, "val_check_interval": 2, "check_val_every_n_epoch": None}
    fitted = fit_stage(stage_data, tiny_model(), tiny_stage("draw"), 4, **settings)
    assert sorted(fitted.values("val/image_loss")) == [2, 4]
    assert fitted.values("val/image_loss")[4] != fitted.values("train/image_loss")[4]


def test_a_checkpoint_leaves_out_a_tower_that_is_not_trained(stage_data: StageData, tmp_path: Path) -> None:
    checkpoint = LastCheckpoint(tmp_path / "last.ckpt", seconds=0)
    fit_stage(stage_data, tiny_model(), tiny_stage("base", accumulate=1), 2, [checkpoint])
    kept = {re.match(r"vargpt\.(\w+)", name)[1] for name in torch.load(checkpoint.path)["state_dict"]}  # type: ignore[index]
    assert "vision_tower" not in kept and "language_model" in kept
    trained = tiny_stage("base", accumulate=1, train=["vision_tower"], data={"questions": 1}, decoder_alone=False)
    fit_stage(stage_data, tiny_model(), trained, 2, [checkpoint])
    assert any(name.startswith("vargpt.vision_tower.") for name in torch.load(checkpoint.path)["state_dict"])


def test_share_of_nothing_is_none() -> None:
    assert share(torch.tensor(3), torch.tensor(4)) == torch.tensor(0.75)
    assert share(0, 0) is None


def test_steps_that_a_module_was_told_need_no_trainer() -> None:
    """As planning has it, whose modules are attached to none."""
    module = UnifiedModule(tiny_model(), tiny_stage("base"), 3)
    assert module.total_steps == 3
