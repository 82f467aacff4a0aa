"""Frozen weights in few bits: how near, how small, and what trains beside them."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.models.language.test_lora import logits
from tests.tiny import tiny_stage
from tests.tiny_training import tiny_model
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.models.language.quantization import LowBitLinear, low_bit_layers, pack_frozen
from vargpt_lightning.modules.trainable import prepare_model, summary
from vargpt_lightning.recipe.stage import LoraSettings, Stage
from vargpt_lightning.utils.errors import UserError

ERRORS = {8: 0.01, 4: 0.11}
"""The largest error of a normal weight, by norms."""


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("shape", [(96, 64), (30, 7), (5, 33)])
def test_products_are_near_and_gradients_are_those_of_the_packed_weight(bits: int, shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(shape[1], shape[0]).requires_grad_(False)
    packed = LowBitLinear(linear, bits)
    weight = packed(torch.eye(shape[1]), torch.zeros(shape[0])).T
    error = (weight - linear.weight).norm() / linear.weight.norm()
    assert 0 < error < ERRORS[bits]
    x = torch.randn(2, 3, shape[1], requires_grad=True)
    assert torch.allclose(packed(x), F.linear(x, weight, linear.bias), atol=1e-5)
    gradient = torch.randn(2, 3, shape[0])
    packed(x).backward(gradient)
    assert x.grad is not None and torch.allclose(x.grad, gradient @ weight, atol=1e-5)


@pytest.mark.parametrize("bits", [8, 4])
def test_few_bits_are_fewer_bytes_here_and_on_the_meta_device(bits: int) -> None:
    linear = nn.Linear(256, 512, bias=False).requires_grad_(False)
    packed = LowBitLinear(linear, bits)
    held = sum(each.numel() * each.element_size() for each in packed.buffers())
    assert not list(packed.parameters()) and not packed.state_dict()
    assert 256 * 512 * bits / 8 < held < 256 * 512 * (bits + 0.51) / 8
    empty = LowBitLinear(linear.to("meta"), bits)
    assert [(each.shape, each.dtype) for each in empty.buffers()] == [
        (each.shape, each.dtype) for each in packed.buffers()
    ]
    assert empty(torch.empty(3, 256, device="meta")).shape == (3, 512)


def test_scales_stay_exact_and_products_follow_the_precision() -> None:
    packed = LowBitLinear(nn.Linear(64, 8).requires_grad_(False), 4)
    scales = packed.scales.clone()
    packed.to(torch.bfloat16)
    assert torch.equal(packed.scales, scales) and packed.packed.dtype == torch.uint8
    assert packed(torch.zeros(1, 64, dtype=torch.bfloat16)).dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert packed.float()(torch.zeros(1, 64)).dtype == torch.bfloat16


def adapter_stage(**changes: object) -> Stage:
    lora = LoraSettings(rank=2, alpha=4, also=["embed_tokens"])
    bits = {"language_model": 4, "vision_tower": 8, "visual_decoder": 4}
    return tiny_stage("base", **{"lora": lora, "train": ["language_model"], "frozen_bits": bits, **changes})


def test_a_step_moves_adapters_and_what_is_trained_beside_them_alone() -> None:
    model = tiny_model()
    before, counts = logits(model.language_model), [row[:2] for row in summary(model)]
    prepare_model(model, adapter_stage())
    near = logits(model.language_model)
    assert 0 < (near - before).norm() / before.norm() < 0.2
    layers = low_bit_layers(model)
    assert {name.split(".")[0] for name in layers} == {"language_model", "vision_tower", "visual_decoder"}
    assert not any("lm_head" in name or "word_embed" in name or name.endswith(".head") for name in layers)
    added = sum(each.numel() for name, each in model.named_parameters() if "lora_" in name)
    counts[0] = ("language_model", counts[0][1] + added)
    assert [row[:2] for row in summary(model)] == counts, "packed weights are counted as what they stand for"
    kept = {name: each.detach().clone() for name, each in [*model.named_parameters(), *model.named_buffers()]}
    optimizer = torch.optim.SGD([each for each in model.parameters() if each.requires_grad], lr=1.0)
    model.language_model(torch.tensor([[7, 8, 9]])).square().sum().backward()
    optimizer.step()
    moved = {name for name, each in [*model.named_parameters(), *model.named_buffers()] if not each.equal(kept[name])}
    assert moved and all("lora_B" in name or "embed_tokens" in name for name in moved)


def test_weights_that_are_trained_or_are_not_there_are_not_packed() -> None:
    model: VARGPT = tiny_model()
    with pytest.raises(UserError, match="frozen_bits: visual_decoder has no frozen linear weights in this model"):
        pack_frozen(model.requires_grad_(True), {"visual_decoder": 4})
    model.vision_tower = None
    with pytest.raises(UserError, match=r"stages\.base\.frozen_bits: vision_tower has no frozen"):
        prepare_model(model, adapter_stage())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"frozen_bits": {"vision_tower": 3}}, r"stages\.base\.frozen_bits\.vision_tower=3; expected a whole .*4 to 8"),
        ({"frozen_bits": {"vision_tower": 5}}, r"stages\.base\.frozen_bits\.vision_tower=5; expected 4 or 8"),
        (
            {"frozen_bits": {"vision": 4}},
            r"frozen_bits: 'vision' is not a submodule; there are language_model",
        ),
        ({"frozen_bits": {"image_tokenizer": 8}}, "image_tokenizer computes in 32 bits always"),
        ({"lora": None}, r"frozen_bits\.language_model=4: the stage trains language_model; expected a frozen .*lora"),
        (
            {"frozen_bits": {"generation_projectors": 4}, "train": ["language_model", "generation_projector_in"]},
            r"the stage trains generation_projectors; expected a frozen submodule$",
        ),
    ],
)
def test_wrong_bits_are_named(changes: dict[str, object], told: str) -> None:
    with pytest.raises(UserError, match=told):
        adapter_stage(**changes)
