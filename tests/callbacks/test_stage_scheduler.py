"""Exactly the stage's submodules are trained; everything else stays as it is, in weights, gradients and modes."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from rich.console import Console
from torch import nn

from tests.tiny import tiny_config, tiny_stage
from tests.tiny_training import fit_stage, tiny_model
from vargpt_lightning.callbacks.stage_scheduler import StageScheduler
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.models.core.config import VisionConfig
from vargpt_lightning.models.vargpt import SUBMODULES
from vargpt_lightning.modules.trainable import freeze_all_but, set_modes, summary
from vargpt_lightning.recipe.stage import Stage
from vargpt_lightning.training.data.stage_data import StageData
from vargpt_lightning.utils.errors import UserError

STAGES = {
    "tokenizer": ["image_tokenizer"],
    "base": ["language_model", "vision_projector", "visual_decoder"],
    "draw": ["visual_decoder", "generation_projector_in", "generation_projector_out"],
}


def weights(model: VARGPT) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


@pytest.mark.parametrize(("name", "trained"), STAGES.items())
def test_exactly_the_stages_submodules_change(name: str, trained: list[str], stage_data: StageData) -> None:
    model = tiny_model()
    before = weights(model)
    fitted = fit_stage(stage_data, model, tiny_stage(name))
    changed = {key.split(".")[0] for key, value in weights(model).items() if not torch.equal(value, before[key])}
    assert changed == set(trained)
    held = {id(parameter) for group in fitted.trainer.optimizers[0].param_groups for parameter in group["params"]}
    state = {id(parameter) for parameter in fitted.trainer.optimizers[0].state}
    for key, parameter in model.named_parameters():
        ours = key.split(".")[0] in trained
        assert parameter.requires_grad == ours
        assert (id(parameter) in held) == ours
        assert ours or (id(parameter) not in state and parameter.grad is None)


class Modes(pl.Callback):
    """Puts everything into training mode, and notes which parts are while a batch is trained."""

    def __init__(self) -> None:
        self.seen: list[set[str]] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        pl_module.train()

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
        self.seen.append({name.split(".")[0] for name, part in pl_module.vargpt.named_modules() if part.training})


def test_frozen_parts_stay_in_eval_mode_after_validation_too(stage_data: StageData) -> None:
    modes = Modes()
    settings = {"limit_val_batches": 1, "val_check_interval": 2, "check_val_every_n_epoch": None}
    fit_stage(stage_data, tiny_model(), tiny_stage("base", accumulate=1), 6, [modes], **settings)
    assert len(modes.seen) == 6
    assert all(names == {"", *STAGES["base"]} for names in modes.seen), "the model itself is in training mode"


def test_dropout_of_frozen_parts_is_off() -> None:
    model = VARGPT(tiny_config())
    freeze_all_but(model, tiny_stage("draw"))
    dropouts = {name: part.training for name, part in model.named_modules() if isinstance(part, nn.Dropout) and part.p}
    assert {name.split(".")[0] for name, on in dropouts.items() if on} == {"visual_decoder"}
    assert {name.split(".")[0] for name, on in dropouts.items() if not on} == {"image_tokenizer"}


def test_a_trained_efficientnet_keeps_the_statistics_that_all_processes_have() -> None:
    """Each process sees other pictures: statistics of its own batches would be its own weights."""
    vision = VisionConfig(kind="efficientnet_lite0", picture_size=64)
    model = VARGPT(replace(tiny_config(), vision=vision))
    freeze_all_but(model, tiny_stage("base", train=["vision_tower"]))
    tower: Any = model.vision_tower
    before = {name: value.clone() for name, value in tower.named_buffers()}
    model.see(torch.randn(3, 3, 64, 64)).sum().backward()
    assert any("running_mean" in name for name in before)
    assert all(parameter.grad is not None for parameter in tower.parameters())
    assert all(torch.equal(value, before[name]) for name, value in tower.named_buffers())
    assert not any(part.training for part in tower.modules())


def test_a_stage_after_another_frees_what_that_froze() -> None:
    model = VARGPT(tiny_config())
    freeze_all_but(model, tiny_stage("tokenizer"))
    freeze_all_but(model, tiny_stage("base"))
    trained = {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == set(STAGES["base"])


def test_modes_follow_the_names() -> None:
    model = VARGPT(tiny_config())
    set_modes(model, ["generation_projectors"])
    assert model.training and model.generation_projector_in.training and not model.language_model.training


def test_the_table_names_every_submodule() -> None:
    out, model = io.StringIO(), tiny_model()
    scheduler = StageScheduler([tiny_stage("tokenizer"), tiny_stage("draw")], "draw", Console(file=out, width=100))
    freeze_all_but(model, tiny_stage("draw"))
    scheduler._show(model)
    said = out.getvalue()
    assert "stage 2 of 2: draw" in said
    for name, count, trained in summary(model):
        (line,) = [line for line in said.splitlines() if f" {name} " in line]
        assert f"{count:,}" in line and ("trained" if trained else "frozen") in line
    assert sum(count for _, count, _ in summary(model)) == sum(p.numel() for p in model.parameters())


def test_the_table_is_shown_when_training_begins(stage_data: StageData, capsys: Any) -> None:
    fit_stage(stage_data, tiny_model(), tiny_stage("draw"), 1)
    assert "stage 1 of 1: draw" in capsys.readouterr().out


def test_state_says_which_stage_and_a_checkpoint_of_another_is_refused() -> None:
    stages = [tiny_stage("tokenizer"), tiny_stage("base")]
    state = StageScheduler(stages, "base").state_dict()
    assert state == {"active": "base", "index": 1, "first_step": 0}
    StageScheduler(stages, "base").load_state_dict(state)
    with pytest.raises(UserError, match=r"checkpoint is of stage 'base', but stage 'tokenizer' is being trained"):
        StageScheduler(stages, "tokenizer").load_state_dict(state)


def stage(**changes: Any) -> Stage:
    return Stage(**{"name": "one", "train": ["language_model"], "data": {"a": 1}, "steps": 1} | changes)


def test_an_unknown_submodule_is_refused_with_those_there_are() -> None:
    with pytest.raises(UserError, match=r"stages.one.train: 'visual_decodr' is not a submodule; there are ") as error:
        StageScheduler([stage(train=["visual_decodr"])], "one")
    assert all(name in str(error.value) for name in SUBMODULES)


def test_a_name_that_occurs_twice_is_refused() -> None:
    with pytest.raises(UserError, match=r"stages: the name 'one' occurs twice"):
        StageScheduler([stage(), stage()], "one")


def test_an_empty_plan_is_refused() -> None:
    with pytest.raises(UserError, match=r"stages: the list is empty; expected at least one stage"):
        StageScheduler([], "one")


def test_an_unknown_active_stage_is_refused_with_those_there_are() -> None:
    with pytest.raises(UserError, match=r"stage 'two' is not in the plan; there are one, three"):
        StageScheduler([stage(), stage(name="three")], "two")


def test_a_stage_that_trains_nothing_is_refused() -> None:
    with pytest.raises(UserError, match=r"stages.one.train is empty: the stage would train nothing"):
        stage(train=[])
    config = tiny_config()
    config.vision.kind = "none"
    blind = VARGPT(config)
    with pytest.raises(UserError, match=r"stages.one.train=\['vision_projector'\] trains nothing .*language_model"):
        freeze_all_but(blind, stage(train=["vision_projector"]))
