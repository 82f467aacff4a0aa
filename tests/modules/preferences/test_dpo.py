"""DPO: the published formula's gradients, what it is at the reference, and that the chosen answer gains."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.tiny import tiny_stage
from tests.tiny_training import fit_stage, tiny_model
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.models.core.correction import SelfCorrection
from vargpt_lightning.modules.preferences.dpo import DpoModule
from vargpt_lightning.modules.preferences.reference import ReferenceValues
from vargpt_lightning.modules.trainable import freeze_all_but
from vargpt_lightning.recipe.preferences import DpoSettings
from vargpt_lightning.recipe.stage import OptimizerConfig, Stage
from vargpt_lightning.training.data.stage_data import StageData
from vargpt_lightning.utils.errors import UserError

ALL = ["language_model", "vision_projector", "visual_decoder", "generation_projectors"]
SETTINGS = {"train": ALL, "head": "dpo", "optimizer": OptimizerConfig(lr=1e-3)}


def dpo_stage(**changes: Any) -> Stage:
    data = changes.pop("data", {"pairs": 1.0, "words": 1.0})
    return tiny_stage("draw", **{**SETTINGS, "data": data, "steps": 2, "batch_size": 4, **changes})


def moved(model: VARGPT) -> VARGPT:
    """A policy that is not the reference any more."""
    policy = copy.deepcopy(model)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return policy


def module_beside(reference: VARGPT, policy: VARGPT, stage: Stage, batches: list[Any], folder: Path) -> DpoModule:
    """The stage's module of a policy, with what the reference makes of these batches."""
    values = ReferenceValues(folder)
    frozen = DpoModule(reference, stage, 1)
    for batch in batches:
        with torch.no_grad():
            values.add(frozen.keys(batch), frozen.scores(frozen.found(frozen(batch))))
    freeze_all_but(policy, stage)
    module = DpoModule(policy, stage, 1)
    module.reference = values
    module.log = lambda *arguments, **more: None  # type: ignore[method-assign]
    return module


def gradients(model: VARGPT) -> dict[str, Tensor]:
    return {name: value.grad.double() for name, value in model.named_parameters() if value.grad is not None}


def likelihoods(model: VARGPT, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Sums of log-probabilities of a batch's answers, and their means, in float64 and from whole distributions."""
    output = model(batch, return_text_logits=True)
    labels_BT, ids_BT = batch["labels"], batch["input_ids"]
    every_BTV = F.pad(output.text_logits[:, :-1].log_softmax(-1), (0, 0, 1, 0))
    text_BT = every_BTV.gather(-1, labels_BT.clamp_min(0)[..., None])[..., 0] * (labels_BT >= 0)
    counts_B = (labels_BT >= 0).sum(1)
    if output.image_logits is None:
        return text_BT.sum(1), text_BT.sum(1) / counts_B
    image_QL = output.image_logits.log_softmax(-1).gather(-1, output.image_indices[..., None])[..., 0]
    drawn_B = ((ids_BT == model.tokens.image_gen).sum(1) > 0).nonzero()[:, 0]
    total_B = text_BT.sum(1).index_add(0, drawn_B, image_QL.sum(1))
    counts_B = counts_B.index_add(0, drawn_B, torch.full_like(drawn_B, image_QL.shape[1]))
    return total_B, total_B / counts_B


@pytest.mark.parametrize(("form", "corpus"), [("sum", "pairs"), ("mean", "pairs"), ("sum", "words")])
def test_its_gradients_are_the_published_formulas_in_float64(
    form: Any, corpus: str, paired_data: StageData, tmp_path: Path
) -> None:
    settings = DpoSettings(beta=0.3 if form == "sum" else 20.0, log_probability=form, supervised=0.2)
    stage = dpo_stage(dpo=settings, data={corpus: 1.0})
    reference = tiny_model()
    paired_data.prepare(reference, stage)
    (batch,) = paired_data.train_loader(stage, 1, 0)
    assert ("drawn_indices" in batch) == (corpus == "pairs")
    policy = moved(reference)
    module = module_beside(reference, policy, stage, [batch], tmp_path / "reference")
    loss = module.training_step(batch, 0)
    assert loss is not None
    loss.backward()

    exact, frozen = (copy.deepcopy(model).double().eval() for model in (policy, reference))
    exact.zero_grad()
    sums_B, means_B = likelihoods(exact, batch)
    with torch.no_grad():
        before = likelihoods(frozen, batch)
    ratios_N2 = ((sums_B, means_B)[form == "mean"] - before[form == "mean"]).view(-1, 2)
    published = -torch.log(torch.sigmoid(settings.beta * (ratios_N2[:, 0] - ratios_N2[:, 1]))).mean()
    wanted = published - 0.2 * means_B[::2].mean()
    wanted.backward()
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    found, exactly = gradients(policy), gradients(exact)
    assert found.keys() == exactly.keys()
    norm = torch.stack([value.norm() for value in exactly.values()]).norm()
    for name, value in exactly.items():
        assert (found[name] - value).norm() <= 1e-5 * norm, name


def test_at_the_reference_it_is_ln_2_and_equal_answers_pull_nowhere(paired_data: StageData, tmp_path: Path) -> None:
    stage = dpo_stage(dpo=DpoSettings(supervised=0.0), data={"pairs": 1.0})
    model = tiny_model()
    paired_data.prepare(model, stage)
    (batch,) = paired_data.train_loader(stage, 1, 0)
    module = module_beside(model, model, stage, [batch], tmp_path / "one")
    loss = module.training_step(batch, 0)
    assert loss is not None and loss.item() == pytest.approx(math.log(2), abs=1e-6)
    loss.backward()
    assert max(float(value.norm()) for value in gradients(model).values()) > 1e-4

    alike = {name: value.clone() if isinstance(value, Tensor) else value for name, value in batch.items()}
    for name in ("input_ids", "attention_mask", "labels"):
        alike[name][1::2] = alike[name][::2]
    pictures = alike["drawn_indices"]
    pictures[1::2] = pictures[::2]
    model.zero_grad()
    same = module_beside(model, moved(model), stage, [alike], tmp_path / "two").training_step(alike, 0)
    assert same is not None and same.item() == pytest.approx(math.log(2), abs=1e-6)
    module = module_beside(model, model, stage, [alike], tmp_path / "three")
    again = module.training_step(alike, 0)
    assert again is not None
    again.backward()
    assert all(float(value.abs().max()) < 1e-6 for value in gradients(model).values())


@pytest.mark.parametrize("corpus", ["pairs", "words"])
def test_the_chosen_answer_becomes_likelier_than_the_rejected_one(corpus: str, paired_data: StageData) -> None:
    rate = OptimizerConfig(lr=1e-2)
    stage = dpo_stage(data={corpus: 1.0}, records=1, batch_size=1, steps=12, optimizer=rate)
    model = tiny_model()
    fitted = fit_stage(paired_data, model, stage, limit_val_batches=1, val_check_interval=6)
    margins = fitted.values("train/reward_margin")
    assert margins[1] == 0.0 and margins[12] > 0.1
    losses = fitted.values("train/preference_loss")
    assert losses[1] == pytest.approx(math.log(2), abs=1e-6) and losses[12] < 0.65
    assert fitted.values("train/pair_accuracy")[12] == 1.0
    assert set(fitted.values("val/reward_margin")) == {6, 12}
    counts = fitted.module.last_counts
    assert counts["samples"] == 1 and counts["image_tokens"] == (10 if corpus == "pairs" else 0)


def test_changed_codes_are_the_same_for_both(paired_data: StageData, tmp_path: Path) -> None:
    stage = dpo_stage(data={"pairs": 1.0}, self_correction=SelfCorrection(strength=0.5))
    model = tiny_model()
    paired_data.prepare(model, stage)
    (batch,) = (paired_data.scaled(each) for each in paired_data.train_loader(stage, 1, 0))
    module = module_beside(model, model, stage, [batch], tmp_path / "reference")
    plain = DpoModule(model, dpo_stage(data={"pairs": 1.0}), 1)
    with torch.no_grad():
        first, again = (module.scores(module.found(module(batch))) for _ in range(2))
        assert torch.equal(first, again) and torch.equal(first, module.of_reference(batch))
        assert not torch.equal(first, plain.scores(plain.found(plain(batch))))
        part = {name: value[2:4] if isinstance(value, Tensor) else value for name, value in batch.items()}
        part["samples"] = 1
        alone = module.scores(module.found(module(part)))
    torch.testing.assert_close(alone, first[2:4], rtol=1e-6, atol=1e-5, msg="it depends on the others in the batch")


def test_records_without_a_rejected_answer_are_refused(paired_data: StageData) -> None:
    stage = dpo_stage(data={"pairs": 1.0, "drawings": 1.0})
    with pytest.raises(UserError, match=r"stages\.draw\.data: 9 of the 9 records of 'drawings' have no rejected"):
        paired_data.prepare(tiny_model(), stage)
