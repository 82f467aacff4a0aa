"""Text and image losses: apart in the log, together in the gradient, as the stage's head says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from tests.tiny import tiny_stage
from tests.tiny_training import fit_stage, tiny_model
from vargpt_lightning.models.core.correction import SelfCorrection
from vargpt_lightning.modules.generation import GenerationModule
from vargpt_lightning.modules.trainable import freeze_all_but
from vargpt_lightning.modules.understanding import UnderstandingModule
from vargpt_lightning.modules.unified import UnifiedModule
from vargpt_lightning.modules.vargpt_module import VARGPTModule
from vargpt_lightning.recipe.stage import Stage
from vargpt_lightning.training.data.stage_data import StageData

ALL = ["language_model", "vision_projector", "visual_decoder", "generation_projectors"]


def losses_of(data: StageData, stage: Stage, batches: int = 4) -> tuple[UnifiedModule, list[tuple[Any, Any, Any]]]:
    """The module without dropout; for each batch the batch, the output and the loss that is trained."""
    model = tiny_model()
    data.prepare(model, stage)
    freeze_all_but(model, stage)
    model.eval()
    module = VARGPTModule(model, stage, batches)
    assert isinstance(module, UnifiedModule)
    found = []
    for batch in data.train_loader(stage, batches, 0):
        output = module(batch)
        found.append((batch, output, module._loss(output)))
    return module, found


def test_the_head_says_which_module() -> None:
    from vargpt_lightning.modules.objectives import OBJECTIVES

    assert OBJECTIVES["unified"] is UnifiedModule
    assert OBJECTIVES["understanding"] is UnderstandingModule
    assert OBJECTIVES["generation"] is GenerationModule


@pytest.mark.parametrize(
    ("head", "names"), [("unified", {"text", "image"}), ("understanding", {"text"}), ("generation", {"image"})]
)
def test_each_head_trains_and_logs_its_own_losses(head: str, names: set[str], stage_data: StageData) -> None:
    stage = Stage("one", ALL, {"drawings": 1.0}, steps=2, batch_size=2, head=head, text_weight=0.5, image_weight=3.0)  # type: ignore[arg-type]
    _, found = losses_of(stage_data, stage)
    for _, output, loss in found:
        wanted = 0.5 * output.text_loss * ("text" in names) + 3.0 * output.image_loss * ("image" in names)
        torch.testing.assert_close(loss, wanted)
    fitted = fit_stage(stage_data, tiny_model(), stage)
    for kind in ("text", "image"):
        assert bool(fitted.values(f"train/{kind}_loss")) == (kind in names)
        assert bool(fitted.values(f"train/{kind}_accuracy")) == (kind in names)
    assert bool(fitted.values("train/image_loss_scale_2")) == ("image" in names)


def test_counts_are_those_of_the_batch(stage_data: StageData) -> None:
    stage = Stage("one", ALL, {"drawings": 1.0}, steps=1, batch_size=3)
    (batch,) = stage_data_batches(stage_data, stage)
    counts = fit_stage(stage_data, tiny_model(), stage).module.last_counts
    text = int((batch["labels"][:, 1:] != -100).sum())
    rows = {"tokens": int(batch["attention_mask"].sum()), "positions": batch["input_ids"].numel()}
    assert counts == {"text_tokens": text, "image_tokens": 3 * 5, "samples": 3, **rows}


def test_a_stage_of_packed_records_trains_and_counts_records(stage_data: StageData) -> None:
    data = {"drawings": 1.0, "questions": 1.0}
    stage = Stage("one", ALL, data, steps=3, max_tokens=200, packing=True, accumulate=2)
    batches = stage_data_batches(stage_data, replace(stage, steps=6, accumulate=1))
    fitted = fit_stage(stage_data, tiny_model(), stage)
    assert fitted.trainer.global_step == 3
    counts, last = fitted.module.last_counts, batches[-1]
    assert counts["samples"] == len(last["rows"].records) > len(last["input_ids"])
    assert counts["image_tokens"] == 5 * len(last["drawn_indices"])
    assert fitted.values("train/text_loss") and fitted.values("train/image_loss")


def stage_data_batches(data: StageData, stage: Stage) -> list[Any]:
    data.prepare(tiny_model(), stage)
    return list(data.train_loader(stage, stage.steps or 1, 0))


def test_the_decoder_alone_is_trained_without_the_language_model(stage_data: StageData) -> None:
    stage = tiny_stage("base", accumulate=1, data={"pictures": 1})
    module, found = losses_of(stage_data, stage, 2)
    found[0][2].backward()
    assert all(parameter.grad is None for parameter in module.vargpt.language_model.parameters())
    assert any(parameter.grad is not None for parameter in module.vargpt.visual_decoder.parameters())
    output = found[0][1]
    classes_Q = torch.full((len(output.image_indices),), module.vargpt.null_class)
    logits_QLV = module.vargpt.visual_decoder(classes_Q, module.vargpt.next_scale_inputs(output.image_indices))
    torch.testing.assert_close(output.image_logits, logits_QLV)


def test_questions_beside_the_decoder_alone_pass_through_the_language_model(stage_data: StageData) -> None:
    stage = tiny_stage("base", accumulate=1, data={"questions": 1, "pictures": 1})
    _, found = losses_of(stage_data, stage, 4)
    kinds = [(output.text_loss is not None, output.image_loss is not None) for _, output, _ in found]
    assert sorted(set(kinds)) == [(False, True), (True, False)]


def test_a_batch_that_trains_nothing_is_passed_over_with_one_warning(stage_data: StageData) -> None:
    stage = Stage("one", ["visual_decoder"], {"questions": 1.0, "drawings": 1.0}, steps=6, batch_size=2)
    model = tiny_model()
    before = {name: value.clone() for name, value in model.visual_decoder.named_parameters()}
    with pytest.warns(UserWarning, match=r"stages.one: a batch trains nothing of visual_decoder") as caught:
        fitted = fit_stage(stage_data, model, stage)
    assert sum("trains nothing" in str(each.message) for each in caught) == 1
    assert not any("compute" in str(each.message) for each in caught), "a row without values is nothing to warn of"
    assert fitted.trainer.global_step == 6
    assert any(not torch.equal(value, before[name]) for name, value in model.visual_decoder.named_parameters())


def test_label_smoothing_changes_what_is_trained_and_not_what_is_logged(stage_data: StageData) -> None:
    stage = tiny_stage("draw", label_smoothing=0.2)
    _, found = losses_of(stage_data, stage, 1)
    _, output, loss = found[0]
    flat = output.image_logits.flatten(0, 1), output.image_indices.flatten()
    torch.testing.assert_close(loss, F.cross_entropy(*flat, label_smoothing=0.2))
    torch.testing.assert_close(output.image_loss, F.cross_entropy(*flat))
    assert not torch.allclose(loss, output.image_loss)


def test_averaging_over_scales_gives_each_scale_the_same_weight(stage_data: StageData) -> None:
    _, found = losses_of(stage_data, tiny_stage("draw", average="scales"), 1)
    _, output, loss = found[0]
    torch.testing.assert_close(loss.detach(), output.image_loss_per_scale.mean())
    assert not torch.allclose(loss, output.image_loss)


def test_self_correction_feeds_changed_codes_in_training_alone(stage_data: StageData) -> None:
    drawing, losses = {"drawings": 1.0}, []
    for settings in (SelfCorrection(strength=1.0), None):
        stage = Stage("one", ["visual_decoder"], drawing, steps=2, batch_size=4, head="generation")
        stage.self_correction = settings
        fitted = fit_stage(stage_data, tiny_model(), stage)
        losses.append(fitted.values("train/image_loss"))
    assert losses[0].keys() == losses[1].keys() and losses[0] != losses[1]


def test_a_pass_for_validation_changes_no_codes() -> None:
    stage = Stage("one", ["visual_decoder"], {"drawings": 1.0}, steps=2, head="generation", decoder_alone=True)
    batch = {"drawn_pixels": torch.rand(2, 3, 8, 8) * 2 - 1}
    losses = []
    for settings in (SelfCorrection(strength=1.0), None):
        stage.self_correction = settings
        losses.append(VARGPTModule(tiny_model(), stage, 2).eval()(batch).image_loss)
    assert losses[0] == losses[1]
