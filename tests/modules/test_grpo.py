"""Group relative policy optimization: the published formula, and drawings of one's own under a reward.

Legend: N groups, G drawings of each, Q = N G, L visual tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.models.cases import DRAWN, IDS, make_batch, small_model
from tests.tiny import tiny_config
from tests.tiny_training import fit_stage, tiny_model
from vargpt_lightning.callbacks.checkpoint_io import LastCheckpoint
from vargpt_lightning.data.loading.collate import Rows
from vargpt_lightning.evaluation.systems.scorers import find_scorer
from vargpt_lightning.models.images import to_images
from vargpt_lightning.modules.preferences.grpo import GRPOModule
from vargpt_lightning.modules.preferences.grpo_loss import advantages, grpo_terms
from vargpt_lightning.modules.step_counts import SHARE, Counts, Share, total
from vargpt_lightning.planning.steps import RowShape, build_empty, trace_step
from vargpt_lightning.recipe.grpo import GRPOSettings
from vargpt_lightning.recipe.sharding import ShardingConfig
from vargpt_lightning.recipe.stage import Stage
from vargpt_lightning.training.data.rewards import check_reward, give_rewards
from vargpt_lightning.training.data.stage_data import StageData
from vargpt_lightning.utils.errors import UserError

PROMPTS = [[IDS.bos, 7, 8, 9], [IDS.bos, 5, 6, 7, 8], [IDS.bos, 9, 3, 4]]


def stage_of(**settings: Any) -> Stage:
    given = {"reward": "brightness", "group": 3} | settings
    train = ["visual_decoder", "generation_projectors"]
    return Stage("rl", train, {"drawings": 1.0}, steps=2, batch_size=2, head="grpo", grpo=GRPOSettings(**given))


def brightness(pictures: Sequence[Image.Image], requests: Sequence[str]) -> list[float]:
    return [float(np.asarray(picture).mean()) for picture in pictures]


class Alone(GRPOModule):
    """A module without a trainer, at a step of its own."""

    step = 0
    scorers = staticmethod(lambda name: brightness)

    @property
    def stage_step(self) -> int:
        return self.step

    @property
    def trainer(self) -> Any:
        return type("Trainer", (), {"accumulate_grad_batches": 1, "world_size": 1, "global_rank": 0})()

    def log_losses(self, values: Any, split: str, samples: int, tokens: Any = None) -> None:
        self.logged = {name: float(value) for name, value in values.items() if value is not None}


def batch_of(prompts: Sequence[list[int]]) -> dict[str, Any]:
    batch: dict[str, Any] = make_batch([[*prompt, *DRAWN, IDS.eos] for prompt in prompts])
    rows = Rows([])
    rows.requests = ["draw"] * len(prompts)
    return batch | {"drawn_indices": torch.zeros(len(prompts), 30, dtype=torch.long), "rows": rows}


def gradients(module: GRPOModule, batches: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    module.zero_grad()
    for batch in batches:
        loss = module.training_step(batch, 0)
        assert loss is not None
        loss.backward()
    return {name: each.grad.clone() for name, each in module.vargpt.named_parameters() if each.grad is not None}


# the formula


def published(now: Tensor, old: Tensor, ref: Tensor, rewards: list[list[float]], eps: float, beta: float) -> Tensor:
    """The objective of the papers term by term, negated, in float64: the mean over groups, drawings and tokens."""
    groups = []
    for n, group in enumerate(rewards):
        mean = sum(group) / len(group)
        std = math.sqrt(sum((r - mean) ** 2 for r in group) / (len(group) - 1))
        drawings = []
        for g, reward in enumerate(group):
            row, gain = n * len(group) + g, (reward - mean) / (std + 1e-4)
            tokens = []
            for t in range(now.shape[1]):
                ratio = torch.exp(now[row, t] - old[row, t])
                held = torch.clamp(ratio, 1 - eps, 1 + eps)
                apart = torch.exp(ref[row, t] - now[row, t]) - (ref[row, t] - now[row, t]) - 1
                tokens.append(torch.min(ratio * gain, held * gain) - beta * apart)
            drawings.append(torch.stack(tokens).mean())
        groups.append(torch.stack(drawings).mean())
    return -torch.stack(groups).mean()


def test_loss_and_gradient_are_those_of_the_published_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    old, ref = (torch.randn(6, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    rewards = [[0.0, 1.0, 0.5], [3.0, 3.0, 1.0]]
    now = (old + 0.4 * torch.randn(6, 5, generator=generator, dtype=torch.float64)).requires_grad_()
    wanted = published(now, old, ref, rewards, 0.2, 0.3)
    (slope,) = torch.autograd.grad(wanted, now)
    gained = advantages(torch.tensor(rewards, dtype=torch.float64)).flatten()
    terms = grpo_terms(now, old, ref, gained, 0.2, 0.3)
    (found,) = torch.autograd.grad(terms.loss_Q.mean(), now)
    assert terms.loss_Q.mean().item() == pytest.approx(wanted.item(), rel=1e-10)
    torch.testing.assert_close(found, slope, rtol=1e-9, atol=1e-12)
    assert 0 < float(terms.clipped_Q.mean()) < 1


def test_a_group_of_equal_rewards_has_no_advantage() -> None:
    found = advantages(torch.tensor([[0.1, 0.1, 0.1], [0.0, 1.0, 2.0]], dtype=torch.float64))
    assert found[0].tolist() == [0, 0, 0] and found[1].tolist() == pytest.approx([-1, 0, 1], abs=1e-3)


# the module


def test_gradients_on_a_model_are_those_of_a_float64_reference() -> None:
    """Drawn once, moved a little, and the second step compared: ratios, clipping and divergence all take part."""
    module = Alone(small_model(3), stage_of(updates=2, kl=0.5, clip=0.05))
    batch = batch_of(PROMPTS[:2])
    gradients(module, [batch])
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for each in module.vargpt.visual_decoder.parameters():
            each += 0.02 * torch.randn(each.shape, generator=generator)
    module.step = 1
    found = gradients(module, [batch])
    drawn = module._kept[0]
    assert module.logged["kl"] > 0 and 0 < module.logged["clipped"] < 1
    policy, reference = (small_model(3).double() for _ in range(2))
    policy.load_state_dict({name: value.double() for name, value in module.vargpt.state_dict().items()})
    names = dict(policy.named_parameters())
    hidden = torch.zeros(6, dtype=torch.bool)
    with torch.no_grad():
        ref = reference(drawn.rows, log_probabilities=True, hidden_Q=hidden).log_probabilities.image_QL
    now = policy(drawn.rows, log_probabilities=True, hidden_Q=hidden).log_probabilities.image_QL
    rewards = torch.tensor(brightness(pictures_of(module, drawn.rows["drawn_indices"]), []), dtype=torch.float64)
    # what drew them is the reference here: the first step found no change
    loss = published(now.double(), ref.double(), ref.double(), rewards.view(2, 3).tolist(), 0.05, 0.5)
    loss.backward()
    compared = [name for name in found if name.startswith(("visual_decoder", "generation_projector"))]
    assert len(compared) > 20
    for name in compared:
        torch.testing.assert_close(found[name].double(), names[name].grad, rtol=1e-3, atol=1e-5)


def pictures_of(module: GRPOModule, codes_QL: Tensor) -> list[Image.Image]:
    tokenizer = module.vargpt.image_tokenizer
    with torch.no_grad():
        return to_images(list(tokenizer.progressive(codes_QL))[-1])


def test_with_the_policy_that_drew_the_ratio_is_one_and_nothing_diverges() -> None:
    module = Alone(small_model(3), stage_of())
    found = gradients(module, [batch_of(PROMPTS)])
    drawn = module._kept[0]
    assert drawn.drawn_QL is not None
    now_QL = module._log_probabilities(module.vargpt, drawn).detach()
    assert torch.equal((now_QL - drawn.drawn_QL).exp(), torch.ones_like(now_QL))
    assert abs(module.logged["kl"]) < 1e-6, "rounding of two passes"
    assert (module.logged["clipped"], module.logged["groups_alike"]) == (0, 0)
    assert any(float(value.abs().max()) > 0 for value in found.values())
    one, other = drawn.rows["drawn_indices"][:3].unique(dim=0), drawn.rows["drawn_indices"]
    assert len(one) == 3 and other.shape == (9, 30)


def test_drawn_tokens_have_the_probabilities_that_they_were_drawn_with() -> None:
    """Of the first scale's one token: over many drawings it comes as often as the log-probabilities say."""
    module = Alone(small_model(3), stage_of(group=400, kl=0))
    drawn = module._draw(batch_of(PROMPTS[:1]))
    with torch.no_grad():
        rows = {name: value[:1].repeat(48, *[1] * (value.dim() - 1)) for name, value in drawn.rows.items()}
        rows["drawn_indices"][:, 0] = torch.arange(48)
        chances_V = module._log_probabilities(module.vargpt, replace(drawn, rows=rows))[:, 0].exp()
    counts_V = torch.bincount(drawn.rows["drawn_indices"][:, 0], minlength=48) / 400
    assert float(chances_V.sum()) == pytest.approx(1, abs=1e-4)
    assert float((counts_V - chances_V).abs().sum()) < 0.45


def test_a_reward_that_says_nothing_trains_nothing_and_is_counted() -> None:
    module = Alone(small_model(3), stage_of())
    module.scorers = lambda name: lambda pictures, requests: [1.0] * len(pictures)
    found = gradients(module, [batch_of(PROMPTS)])
    assert module.logged["groups_alike"] == 1 and all(float(value.abs().max()) == 0 for value in found.values())


def test_prefix_scales_alone_are_trained() -> None:
    module = Alone(small_model(3), stage_of(scales=2))
    module._draw(batch_of(PROMPTS[:1]))
    trained_L = module._trained(0)
    assert trained_L is not None and trained_L.tolist() == [True] * 5 + [False] * 25
    with pytest.raises(UserError, match=r"stages.rl.grpo.scales=5; expected at most 4"):
        Alone(small_model(3), stage_of(scales=5))


def test_two_processes_make_one_step() -> None:
    """Each draws what one alone draws for its rows, and their gradients add up to the whole one."""
    whole = gradients(Alone(small_model(3), stage_of()), [batch_of(PROMPTS)])
    counts = [Counts(rows=count, drawn_indices=count) for count in (2, 1)]
    sums: dict[str, Tensor] = {}
    for rank, prompts in enumerate((PROMPTS[:2], PROMPTS[2:])):
        batch = batch_of(prompts)
        both = total(counts)
        batch[SHARE] = Share(counts[rank], both, total([Counts(), *counts[:rank]]), both, 2, True)
        for name, value in gradients(Alone(small_model(3), stage_of()), [batch]).items():
            sums[name] = sums.get(name, torch.zeros_like(value)) + value / 2  # processes' gradients are averaged
    for name, value in whole.items():
        torch.testing.assert_close(sums[name], value, rtol=1e-4, atol=1e-6)


WRONG = [
    (lambda pictures, requests: [math.nan] * len(pictures), r"stages.rl.grpo.reward='brightness': got nan for 'draw'"),
    (lambda pictures, requests: [1.0], r"got 1 numbers for 9 drawings; expected as many"),
]


@pytest.mark.parametrize(("reward", "told"), WRONG, ids=["nan", "count"])
def test_rewards_that_are_no_numbers_are_told(reward: Any, told: str) -> None:
    module = Alone(small_model(3), stage_of())
    module.scorers = lambda name: reward
    with pytest.raises(UserError, match=told):
        module.training_step(batch_of(PROMPTS), 0)


def test_what_cannot_be_drawn_for_is_told() -> None:
    module = Alone(small_model(3), stage_of())
    double = batch_of(PROMPTS[:1])
    double["input_ids"] = torch.cat((double["input_ids"], double["input_ids"]), dim=1)
    with pytest.raises(UserError, match=r"head grpo draws one picture for each record; expected records with"):
        module.training_step(double, 0)
    module.scorers = None
    with pytest.raises(UserError, match=r"nobody finds rewards; expected `scorers`"):
        module.training_step(batch_of(PROMPTS), 0)
    with pytest.raises(UserError, match=r"stages.rl.grpo=None with head=grpo; expected a reward"):
        replace(stage_of(), grpo=None)
    with pytest.raises(UserError, match=r"with head=unified; expected none, or head grpo"):
        replace(stage_of(), head="unified")
    with pytest.raises(UserError, match=r"grpo.reward=''; expected a scorer's name"):
        GRPOSettings()


# fits


def test_drawings_become_brighter(stage_data: StageData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GRPOModule, "scorers", staticmethod(lambda name: brightness))
    stage = replace(stage_of(group=12, kl=0.001, updates=2), steps=16, batch_size=4)
    stage.optimizer.lr = 2e-2
    fitted = fit_stage(stage_data, tiny_model(), stage)
    rewards = list(fitted.values("train/reward").values())
    spread = fitted.values("train/reward_spread")[1]
    assert len(rewards) == 16 and np.mean(rewards[-4:]) > rewards[0] + spread, rewards
    assert fitted.values("train/kl")[16] > 0 and fitted.values("train/kl")[1] == 0


def test_a_killed_stage_goes_on_with_the_drawings_it_had(
    stage_data: StageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of three steps with the same drawings, with the reference that the stage began with."""
    monkeypatch.setattr(GRPOModule, "scorers", staticmethod(lambda name: brightness))
    stage = replace(stage_of(updates=3, kl=0.5), steps=5)
    stage.optimizer.lr = 1e-2
    unbroken, resumed = tiny_model(), tiny_model()
    fit_stage(stage_data, unbroken, stage)
    checkpoint = LastCheckpoint(tmp_path / "last.ckpt", seconds=0)

    class Stop(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
            if trainer.global_step == 2:
                raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        fit_stage(stage_data, tiny_model(), stage, 5, [checkpoint, Stop()])
    fit_stage(stage_data, resumed, stage, 5, checkpoint=checkpoint.path)
    for name, value in resumed.state_dict().items():
        assert torch.equal(value, unbroken.state_dict()[name]), name


def test_a_stage_finds_its_reward_among_the_scorers_before_it_is_trained() -> None:
    module = GRPOModule(small_model(3), stage_of())
    give_rewards(module)
    assert module.scorers is find_scorer
    check_reward(stage_of(reward="composition"))
    with pytest.raises(UserError, match=r"stages.rl.grpo.reward: scorer: 'compositon'; .*did you mean 'composition'"):
        check_reward(stage_of(reward="compositon"))


def test_a_stage_is_planned_without_drawing() -> None:
    """All drawings of a batch are trained on, and pass through the reference besides where there is one."""
    row, sharding = RowShape(12, 4, drawn=1), ShardingConfig()
    stages = [stage_of(kl=0, scales=2), stage_of(kl=0.1)]
    without, beside = (trace_step(build_empty(tiny_config()), stage, row, 2, sharding, "cpu").flops for stage in stages)
    assert 0 < without < beside < 1.5 * without
