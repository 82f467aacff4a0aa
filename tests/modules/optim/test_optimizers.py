"""Which parameters an optimizer gets in which group, and the learning rate over a stage."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import nn

from tests.tiny import tiny_stage
from tests.tiny_training import tiny_model
from vargpt_lightning.modules.optim.muon import Muon
from vargpt_lightning.modules.optim.optimizers import (
    build_optimizer,
    build_schedule,
    learning_rate_factor,
    parameter_groups,
)
from vargpt_lightning.modules.trainable import freeze_all_but
from vargpt_lightning.recipe.stage import OptimizerConfig, ScheduleConfig
from vargpt_lightning.utils.errors import UserError


def names(module: nn.Module, config: OptimizerConfig) -> list[tuple[dict[str, object], set[str]]]:
    """Each group's settings, and the names of its parameters."""
    of = {id(parameter): name for name, parameter in module.named_parameters()}
    return [
        ({key: value for key, value in group.items() if key != "params"}, {of[id(each)] for each in group["params"]})
        for group in parameter_groups(module, config)
    ]


def test_decay_is_for_matrices_alone() -> None:
    model = tiny_model()
    freeze_all_but(model, tiny_stage("base"))
    (decayed, matrices), (plain, others) = names(model, OptimizerConfig(weight_decay=0.1))
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert "language_model.model.layers.0.self_attn.q_proj.weight" in matrices
    assert {"language_model.model.embed_tokens.weight", "language_model.model.norm.weight"} <= others
    assert {"visual_decoder.class_emb.weight", "visual_decoder.head.bias"} <= others
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert matrices | others == trained and not matrices & others


def test_muon_takes_the_inner_matrices_and_leaves_heads_and_embeddings() -> None:
    model = tiny_model()
    freeze_all_but(model, tiny_stage("base"))
    config = OptimizerConfig("muon", lr=0.001, muon_lr=0.02, weight_decay=0.1)
    (muon, inner), (decayed, heads), (plain, others) = names(model, config)
    assert muon == {"muon": True, "lr": 0.02, "weight_decay": 0.1}
    assert decayed == {"weight_decay": 0.1} and plain == {"weight_decay": 0.0}
    assert "language_model.model.layers.0.mlp.up_proj.weight" in inner
    assert heads == {"language_model.lm_head.weight", "visual_decoder.head.weight"}
    assert "language_model.model.embed_tokens.weight" in others
    assert names(model, OptimizerConfig("muon", lr=0.003))[0][0]["lr"] == 0.003


def test_an_optimizer_without_parameters_is_refused() -> None:
    with pytest.raises(UserError, match="no parameter is to be trained"):
        build_optimizer(nn.Linear(2, 2).requires_grad_(False), OptimizerConfig())


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(UserError, match=r"optimizer.name: got 'sgd', expected adamw or muon"):
        build_optimizer(nn.Linear(2, 2), OptimizerConfig(name="sgd"))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"schedule.name: got 'steps', expected one of cosine, linear, constant"):
        learning_rate_factor(5, 10, ScheduleConfig(name="steps"))  # type: ignore[arg-type]


def test_settings_reach_the_optimizers() -> None:
    adamw = build_optimizer(nn.Linear(2, 2), OptimizerConfig(lr=0.01, betas=(0.8, 0.9)))
    assert (
        isinstance(adamw, torch.optim.AdamW) and adamw.defaults["lr"] == 0.01 and adamw.defaults["betas"] == (0.8, 0.9)
    )
    assert isinstance(build_optimizer(nn.Sequential(nn.Linear(2, 2)), OptimizerConfig("muon")), Muon)


@pytest.mark.parametrize(("warmup", "steps"), [(0.2, 20), (20, 20), (0, 0)])
def test_warm_up_is_linear_and_a_share_or_a_number_of_steps(warmup: float, steps: int) -> None:
    found = rates(100, ScheduleConfig("constant", warmup=warmup))
    assert found[:steps] == pytest.approx([(step + 1) / (steps + 1) for step in range(steps)])
    assert found[steps:] == [1.0] * (100 - steps)


def rates(total: int, config: ScheduleConfig, more: int = 0) -> list[float]:
    return [learning_rate_factor(step, total, config) for step in range(total + more)]


def test_shapes_fall_to_the_final_factor() -> None:
    cosine = rates(101, ScheduleConfig("cosine", warmup=0, final=0.2), more=400)
    assert cosine[0] == 1.0 and cosine[100:] == [0.2] * 401, "not up again"
    assert cosine[25] == pytest.approx(0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi / 4)))
    linear = rates(101, ScheduleConfig("linear", warmup=0))
    assert linear[25] == pytest.approx(0.75) and linear[100] == 0.0


@pytest.mark.parametrize("total", [1, 2, 3, 100])
@pytest.mark.parametrize(("name", "decay"), [("cosine", 0), ("linear", 0), ("constant", 0.2), ("constant", 40)])
def test_the_last_step_has_the_final_factor(name: Any, decay: float, total: int) -> None:
    for final, warmup in itertools.product((0.1, 0.0, 1.0), (0, 0.1, 2, 200)):
        found = rates(total, ScheduleConfig(name, warmup=warmup, final=final, decay=decay))
        assert found[-1] == final
        assert all(0 < rate <= 1 for rate in found[:-1]), "and none before it is there already"


def test_a_constant_rate_without_a_decay_does_not_fall() -> None:
    assert rates(5, ScheduleConfig("constant", warmup=2, final=0.1)) == pytest.approx([1 / 3, 2 / 3, 1, 1, 1])


def test_a_stage_whose_only_step_has_no_rate_says_so() -> None:
    optimizer = build_optimizer(nn.Linear(2, 2), OptimizerConfig())
    with pytest.warns(UserWarning, match=r"schedule.final=0.0.*1 step"):
        build_schedule(optimizer, 1, ScheduleConfig())


def test_the_schedule_scales_every_groups_own_rate() -> None:
    optimizer = build_optimizer(nn.Sequential(nn.Linear(3, 2)), OptimizerConfig("muon", lr=0.1, muon_lr=0.4))
    schedule = build_schedule(optimizer, 11, ScheduleConfig("linear", warmup=0))
    for _ in range(5):
        optimizer.step()
        schedule.step()
    assert schedule.get_last_lr() == pytest.approx([0.2, 0.05])


@pytest.mark.parametrize("decay", [0.2, 20])
def test_a_constant_rate_may_fall_at_the_end(decay: float) -> None:
    config = ScheduleConfig("constant", warmup=10, decay=decay, final=0.1)
    found = rates(100, config)
    assert found[10:80] == [1.0] * 70
    assert found[80:] == pytest.approx([1 - 0.9 * (step - 79) / 20 for step in range(80, 100)])
    assert found[-1] == 0.1


def test_a_decay_that_has_no_effect_is_refused() -> None:
    with pytest.raises(UserError, match=r"schedule.decay=0.2; expected 0 with cosine"):
        ScheduleConfig("cosine", decay=0.2)
