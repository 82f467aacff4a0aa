"""Preferences of VARGPT-v1.1, and of a model with several sizes: pictures whose places are more, or of another size."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.models.cases import IDS, bit_tokenizer, make_batch, small_model
from tests.models.test_sizes import pixels, sized_model
from tests.models.v1_1 import small_v1_1
from tests.modules.test_grpo import Alone, batch_of, gradients
from tests.modules.test_grpo import stage_of as grpo_stage
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.models.core.correction import SelfCorrection
from vargpt_lightning.modules.preferences.cca import CcaModule
from vargpt_lightning.modules.preferences.dpo import DpoModule
from vargpt_lightning.recipe.stage import Stage

PROMPTS = [[IDS.bos, 7, 8, 9], [IDS.bos, 5, 6, 7]]
MODELS: dict[str, tuple[Any, int]] = {
    "v1_1": (small_v1_1, 0),
    "filled up": (lambda: small_v1_1(published="official"), 0),
    "embeddings": (lambda: small_model(3, tokenizer=bit_tokenizer(), cross_attention="embeddings"), 0),
    "another size": (lambda: sized_model("bits"), 2),
}


def stage_of(head: str, **changes: Any) -> Stage:
    train = ["visual_decoder", "generation_projectors"]
    return Stage("learned", train, {"any": 1.0}, steps=1, batch_size=2, head=head, **changes)


def drawn_rows(model: VARGPT, size: int, prompts: list[list[int]]) -> dict[str, Any]:
    places = [IDS.image_gen] * model.config.picture_lengths[size]
    rows = [[*prompt, IDS.image_gen_start, *places, IDS.image_gen_end, IDS.eos] for prompt in prompts]
    return {**make_batch(rows), "size": size, "drawn_pixels": pixels(size, len(rows))}


@pytest.fixture(params=MODELS)
def given(request: pytest.FixtureRequest) -> tuple[VARGPT, int]:
    make, size = MODELS[request.param]
    return make(), size


@torch.no_grad()
def test_codes_are_changed_for_each_picture_as_for_it_alone(given: tuple[VARGPT, int]) -> None:
    model, size = given
    batch = drawn_rows(model, size, [prompt for prompt in PROMPTS for _ in range(2)]) | {"samples": 2}
    batch["drawn_pixels"][1] = batch["drawn_pixels"][0]
    module = DpoModule(model, stage_of("dpo", self_correction=SelfCorrection(strength=0.5)), 1)
    every_B = module.scores(module.found(module(batch)))
    assert torch.equal(every_B[0], every_B[1]), "equal answers are changed alike"
    part = {name: value[2:] if isinstance(value, Tensor) else value for name, value in batch.items()} | {"samples": 1}
    alone_B = module.scores(module.found(module(part)))
    torch.testing.assert_close(alone_B, every_B[2:], rtol=1e-5, atol=1e-4)


@torch.no_grad()
def test_pictures_beside_other_prompts_have_the_codes_of_their_size(given: tuple[VARGPT, int]) -> None:
    model, size = given
    batch = drawn_rows(model, size, PROMPTS) | {"samples": 2}
    module = CcaModule(model, stage_of("cca"), 1)
    rows = module.rows(batch)
    codes = model.at(size).image_tokenizer.encode(batch["drawn_pixels"])
    assert torch.equal(rows["drawn_indices"], torch.cat((codes, codes.roll(1, 0))))
    assert module.scores(module.found(module(rows))).isfinite().all()


def test_drawings_that_are_rewarded_have_the_size_of_their_batch(given: tuple[VARGPT, int]) -> None:
    model, size = given
    module = Alone(model, grpo_stage(scales=2))
    batch = {**batch_of(PROMPTS), **drawn_rows(model, size, PROMPTS)}
    found = gradients(module, [batch])
    drawn = module._kept[0]
    assert drawn.size == size and drawn.rows["drawn_indices"].shape == (6, *model.at(size).image_tokenizer.code_shape)
    assert drawn.drawn_QL is not None
    now_QL = module._log_probabilities(model, drawn).detach()
    assert torch.equal(now_QL, drawn.drawn_QL), "the policy is the one that drew them"
    assert any(float(value.abs().max()) > 0 for value in found.values())
