"""Adapters of the language model: nothing changes as they begin, and merging keeps what they learned."""

from __future__ import annotations

import pytest
import torch

from tests.tiny import tiny_stage
from tests.tiny_training import tiny_model
from vargpt_lightning.models.language.lora import adapted, attach_adapters, merge_adapters
from vargpt_lightning.modules.trainable import freeze_all_but
from vargpt_lightning.recipe.stage import LoraSettings
from vargpt_lightning.utils.errors import UserError

IDS = torch.tensor([[7, 8, 9, 10]])


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS)


def test_adapters_begin_as_nothing_and_are_merged_exactly() -> None:
    model = tiny_model().language_model
    names, before = list(model.state_dict()), logits(model)
    attach_adapters(model, rank=2, alpha=4, targets=["q_proj", "down_proj"])
    assert [name for _, name, _ in adapted(model)] == ["q_proj", "down_proj"]
    assert torch.equal(logits(model), before)
    for _, _, layer in adapted(model):
        layer.lora_B["default"].weight.data.normal_()
    learned = logits(model)
    assert not torch.allclose(learned, before, atol=1e-3)
    merge_adapters(model)
    assert list(model.state_dict()) == names
    assert torch.allclose(logits(model), learned, atol=1e-5)


def test_a_stage_with_adapters_trains_them_and_what_it_names() -> None:
    model = tiny_model()
    stage = tiny_stage("base", lora=LoraSettings(rank=2, alpha=4, also=["lm_head"]), train=["language_model"])
    attach_adapters(model.language_model, 2, 4)
    freeze_all_but(model, stage)
    trained = {name for name, each in model.named_parameters() if each.requires_grad}
    assert all(".lora_" in name or "lm_head" in name for name in trained)
    assert any(".lora_A." in name for name in trained) and "language_model.lm_head.weight" in trained


def test_wrong_settings_are_named() -> None:
    with pytest.raises(UserError, match=r"lora\.targets: 'k'"):
        attach_adapters(tiny_model().language_model, 2, 4, targets=["k"])
    with pytest.raises(UserError, match="expected language_model among them"):
        tiny_stage("draw", lora=LoraSettings())
    with pytest.raises(UserError, match="rank=0"):
        LoraSettings(rank=0)
