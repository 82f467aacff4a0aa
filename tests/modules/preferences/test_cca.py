"""CCA: the published formula's gradients, rows that are right as well, and processes that share a batch."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.modules.preferences.test_dpo import gradients, moved
from tests.tiny import tiny_stage
from tests.tiny_training import fit_stage, tiny_model, tiny_stage_data
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.modules.preferences import cca
from vargpt_lightning.modules.preferences.cca import CcaModule
from vargpt_lightning.modules.preferences.losses import cca_losses
from vargpt_lightning.modules.preferences.reference import ReferenceValues
from vargpt_lightning.modules.trainable import freeze_all_but
from vargpt_lightning.recipe.preferences import CcaSettings
from vargpt_lightning.recipe.stage import OptimizerConfig, ScheduleConfig, Stage
from vargpt_lightning.training.data.stage_data import StageData
from vargpt_lightning.utils.errors import UserError

TRAINED = ["visual_decoder", "generation_projectors"]


def cca_stage(**changes: Any) -> Stage:
    settings = {"train": TRAINED, "head": "cca", "optimizer": OptimizerConfig(lr=1e-3), "batch_size": 4}
    return tiny_stage("draw", **{**settings, **changes})


def module_beside(reference: VARGPT, policy: VARGPT, stage: Stage, batch: Any, folder: Path) -> CcaModule:
    frozen = CcaModule(reference, stage, 1)
    rows = frozen.rows(batch)
    with torch.no_grad():
        known = frozen.scores(frozen.found(frozen(rows)))
    values = ReferenceValues(folder)
    values.add(frozen.keys(rows), known)
    freeze_all_but(policy, stage)
    module = CcaModule(policy, stage, 1)
    module.reference = values
    module.log = lambda *arguments, **more: None  # type: ignore[method-assign]
    return module


def drawings(model: VARGPT, batch: Any, codes: Tensor, hidden: Tensor) -> Tensor:
    """Sums of log-probabilities of pictures, (N,), from whole distributions."""
    output = model({**batch, "drawn_indices": codes}, hidden_Q=hidden)
    return output.image_logits.log_softmax(-1).gather(-1, codes[..., None])[..., 0].sum(1)


def test_its_gradients_are_the_published_formulas_in_float64(stage_data: StageData, tmp_path: Path) -> None:
    """One of the six has the same text as the one before it, two have hidden prompts."""
    beta, weight = 0.5, 7.0
    stage = cca_stage(cca=CcaSettings(beta=beta, negative_weight=weight, hidden=0.35), batch_size=6)
    reference = tiny_model()
    stage_data.prepare(reference, stage)
    (batch,) = stage_data.train_loader(stage, 1, 0)
    for name in ("input_ids", "attention_mask", "labels"):
        batch[name][2] = batch[name][1]
    policy = moved(reference)
    module = module_beside(reference, policy, stage, batch, tmp_path / "reference")
    hidden_N = module.rows(batch)["hidden"][:6]
    assert 0 < int(hidden_N.sum()) < 6
    loss = module.training_step(batch, 0)
    assert loss is not None
    loss.backward()

    exact, frozen = (copy.deepcopy(model).double().eval() for model in (policy, reference))
    exact.zero_grad()
    own, other = batch["drawn_indices"], batch["drawn_indices"].roll(1, 0)
    with torch.no_grad():
        before = [drawings(frozen, batch, codes, hidden_N) for codes in (own, other)]
    own_N, other_N = (
        drawings(exact, batch, codes, hidden_N) - then for codes, then in zip((own, other), before, strict=True)
    )
    right_N = hidden_N | torch.tensor([False, False, True, False, False, False])
    assert module.rows(batch)["right"].tolist() == right_N.tolist()
    positive = -torch.log(torch.sigmoid(beta * own_N)).mean()
    signed_N = torch.where(right_N, 1.0, -1.0) * other_N
    negative = -(torch.where(right_N, 1.0, weight) * torch.log(torch.sigmoid(beta * signed_N))).mean()
    wanted = (positive + negative) / weight
    wanted.backward()
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    found, exactly = gradients(policy), gradients(exact)
    norm = torch.stack([value.norm() for value in exactly.values()]).norm()
    for name, value in exactly.items():
        assert (found[name] - value).norm() <= 1e-5 * norm, name


def test_at_the_reference_it_is_ln_2_for_each_side() -> None:
    nothing, wrong = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.bool)
    for weight in (0.5, 1.0, 50.0):
        found = cca_losses(nothing, nothing, wrong, 0.02, weight)
        assert found.tolist() == pytest.approx([math.log(2) * (1 + weight) / max(weight, 1)] * 3)
    score_N = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    cca_losses(score_N, score_N, wrong, 0.02, 1.0).sum().backward()
    assert score_N.grad is not None and not score_N.grad.any(), "what raises both sides alike pulls nowhere"


def test_pictures_become_likelier_beside_their_own_prompts(stage_data: StageData) -> None:
    settings, train = CcaSettings(beta=1.0, negative_weight=1.0, hidden=0.0), ["language_model", *TRAINED]
    steady, rate = ScheduleConfig(name="constant"), OptimizerConfig(lr=3e-3)
    stage = cca_stage(cca=settings, train=train, steps=18, records=4, optimizer=rate, schedule=steady)
    fitted = fit_stage(stage_data, tiny_model(), stage, limit_val_batches=1, val_check_interval=9)
    margins = fitted.values("train/reward_margin")
    assert margins[1] == 0.0 and sum(margins[step] for step in range(9, 19)) > 2
    assert set(fitted.values("val/reward_margin")) == {9, 18}
    assert fitted.module.last_counts["samples"] == 4 and fitted.module.last_counts["image_tokens"] == 40


def test_pictures_that_come_as_pixels_are_the_same_rows(tiny_data: dict[str, Any], tmp_path: Path) -> None:
    stage, model, keys = cca_stage(), tiny_model().eval(), []
    for use in ("auto", "off"):
        data = tiny_stage_data(tiny_data, tmp_path / use, visual_tokens=use)
        data.prepare(model, stage)
        (batch,) = (data.scaled(each) for each in data.train_loader(stage, 1, 0))
        assert ("drawn_pixels" in batch) == (use == "off")
        module = CcaModule(model, stage, 1)
        rows = module.rows(batch)
        assert [name for name in rows if name.startswith("drawn")] == ["drawn_indices"]
        keys.append(module.keys(rows))
    assert len(keys[0]) == 8 and keys[0] == keys[1]


def test_a_hidden_prompt_is_drawn_anew_at_each_step_and_never_in_another_way(stage_data: StageData) -> None:
    stage = cca_stage(cca=CcaSettings(hidden=0.5), batch_size=9)
    model = tiny_model()
    stage_data.prepare(model, stage)
    (batch,) = stage_data.train_loader(stage, 1, 0)
    module = CcaModule(model, stage, 1)
    found = []
    for module.drawn_at in (0, 1, 0):
        found.append(module.rows(batch)["hidden"][:9].tolist())
    assert found[0] == found[2] != found[1] and 0 < sum(found[0]) < 9


def test_a_processs_first_picture_follows_the_last_one_of_the_process_before(monkeypatch: pytest.MonkeyPatch) -> None:
    every = torch.arange(7)
    parts = {0: every[:3], 1: every[3:5], 2: every[5:]}
    rank = 0

    def gathered(found: list[Tensor], last: Tensor) -> None:
        assert last.tolist() == [parts[rank][-1]]
        for one, part in zip(found, parts.values(), strict=True):
            one.copy_(part[-1:])

    monkeypatch.setattr(cca.dist, "get_world_size", lambda: 3)
    monkeypatch.setattr(cca.dist, "get_rank", lambda: rank)
    monkeypatch.setattr(cca.dist, "all_gather", gathered)
    rolled = []
    for rank in parts:
        rolled += cca._rolled(parts[rank], True).tolist()
    assert rolled == every.roll(1).tolist() == cca._rolled(every, False).tolist()


def test_corpora_that_do_not_draw_are_refused(stage_data: StageData) -> None:
    with pytest.raises(UserError, match=r"stages\.draw\.data: the 9 records of 'questions' have 0 drawn pictures"):
        stage_data.prepare(tiny_model(), cca_stage(data={"drawings": 1.0, "questions": 1.0}))
