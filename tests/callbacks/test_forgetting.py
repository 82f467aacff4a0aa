"""What is forgotten is seen on records that stay the same, and ends a stage where it is too much."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from tests.tiny import tiny_stage
from tests.tiny_training import Fit, fit_stage, tiny_model
from vargpt_lightning.callbacks.forgetting import FILE, Forgetting, Look, _read, _written
from vargpt_lightning.evaluation.reports.curves import reward_against_kl, reward_svg
from vargpt_lightning.recipe.preferences import CcaSettings, WatchSettings
from vargpt_lightning.recipe.stage import OptimizerConfig, Stage
from vargpt_lightning.runs.folder import MetricRow, StageFolder
from vargpt_lightning.training.data.stage_data import StageData

WATCH = WatchSettings(data=["questions", "drawings"], records=3, every=2)


def watched_stage(watch: WatchSettings) -> Stage:
    train, rate = ["language_model", "visual_decoder"], OptimizerConfig(lr=1e-2)
    settings = CcaSettings(beta=1.0, negative_weight=1.0)
    return tiny_stage("draw", head="cca", train=train, optimizer=rate, cca=settings, watch=watch, steps=5)


def watched_fit(data: StageData, folder: StageFolder, watch: WatchSettings = WATCH, **more: Any) -> Fit:
    stage = watched_stage(watch)
    return fit_stage(data, tiny_model(), stage, callbacks=[Forgetting(watch, lambda: data.watched(stage), folder)])


@pytest.fixture
def folder(tmp_path: Path) -> StageFolder:
    return StageFolder(tmp_path / "01-draw")


def test_it_is_what_the_model_makes_of_the_records(stage_data: StageData, folder: StageFolder) -> None:
    fitted = watched_fit(stage_data, folder)
    divergences, losses = fitted.values("watch/kl"), fitted.values("watch/text_loss")
    assert list(divergences) == list(losses) == [0, 2, 4, 5]
    assert divergences[0] == 0.0 < divergences[2] < divergences[5]
    model, now = tiny_model().eval(), fitted.module.vargpt.eval()
    batches = stage_data.watched(watched_stage(WATCH))
    assert [len(batch["input_ids"]) for batch in batches] == [3, 3]
    text, count, total, numbers, right = 0.0, 0, 0.0, 0, 0
    for batch in map(stage_data.scaled, batches):
        with torch.no_grad():
            before, after = (each(batch, return_text_logits=True) for each in (model, now))
        text += float(before.text_loss) * int(before.text_tokens)
        count += int(before.text_tokens)
        trained_BT = batch["labels"][:, 1:] >= 0
        pairs = [(before.text_logits[:, :-1][trained_BT], after.text_logits[:, :-1][trained_BT])]
        if before.image_logits is not None:
            pairs.append((before.image_logits, after.image_logits))
        else:
            hit_BT = after.text_logits[:, :-1].argmax(-1) == batch["labels"][:, 1:]
            right += int((hit_BT | ~trained_BT).all(1).sum())
        for one, other in pairs:
            total += float(F.kl_div(other.log_softmax(-1), one.log_softmax(-1), log_target=True, reduction="sum"))
            numbers += one.numel() // one.shape[-1]
    assert losses[0] == pytest.approx(text / count, rel=1e-5)
    assert divergences[5] == pytest.approx(total / numbers, rel=1e-4)
    assert fitted.values("watch/question_accuracy")[5] == pytest.approx(right / 3)


def test_a_stage_that_forgets_too_much_ends(stage_data: StageData, folder: StageFolder) -> None:
    fitted = watched_fit(stage_data, folder, replace(WATCH, text_loss=1e-6))
    losses = fitted.values("watch/text_loss")
    assert fitted.trainer.global_step == 2 and losses[2] > losses[0]
    said = folder.record["ended_early"]
    assert said.startswith("the text loss rose from ") and said.endswith("more than watch.text_loss=1e-06")


def test_what_may_fall_is_told_apart(folder: StageFolder) -> None:
    watch = Forgetting(replace(WATCH, question_accuracy=0.1), list, folder)
    first, same, worse = (Look(1.0, share, []) for share in (0.5, 0.45, 0.25))
    assert watch._lost(same, first) == ""
    assert "fell from 50.0% to 25.0%, more than watch.question_accuracy=0.1" in watch._lost(worse, first)
    assert watch._lost(Look(9.0, 0.5, []), first) == "", "text_loss is not set"


def test_the_first_look_is_kept(stage_data: StageData, folder: StageFolder) -> None:
    watched_fit(stage_data, folder)
    look = _read((folder.path / FILE).read_bytes())
    assert [len(part) for part in look.expected] == [1, 2] and look.kl(look) == 0.0
    again = _read(_written(look))
    assert again.text_loss == look.text_loss and torch.equal(again.expected[1][1], look.expected[1][1])


def test_rewards_stand_against_divergences() -> None:
    rows = [MetricRow(0, "watch/kl", 0.0), MetricRow(2, "watch/kl", 0.1), MetricRow(4, "watch/kl", 0.3)]
    rows += [MetricRow(1, "train/reward_margin", 0.5), MetricRow(3, "train/reward_margin", 0.7)]
    points = reward_against_kl(rows)
    assert points == [(0.0, 0.0), (0.1, 0.5), (0.3, 0.7)]
    assert "KL from the reference" in reward_svg(points, "one")
    assert reward_against_kl(rows[:3]) == []
