"""Parts for speed, on hand-made maps and on a small model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.models.cases import IDS, small_model
from tests.models.parts.drawing import PROMPT, Others, assert_same, plain, steered, tiny
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.models.decoder.attention import ScaleSelfAttention
from vargpt_lightning.models.decoder.cache import DecoderCache
from vargpt_lightning.models.decoder.int8 import Int8Linear, Int8WeightLinear, int8_copy
from vargpt_lightning.models.decoder.sampling import SamplingSettings
from vargpt_lightning.models.decoder.visual_decoder import VisualDecoder
from vargpt_lightning.models.generation.answers import GenerationSettings, Prompt
from vargpt_lightning.models.generation.generate import generate
from vargpt_lightning.models.language.kv_cache import LanguageCache
from vargpt_lightning.models.parts.base import Facts, Hooks
from vargpt_lightning.models.parts.fastvar import Filled, enlarged, standing_out
from vargpt_lightning.models.parts.scalekv import grid_of, looked_at
from vargpt_lightning.utils.errors import UserError


@pytest.fixture(scope="module")
def model() -> VARGPT:
    return tiny()


@pytest.fixture(scope="module")
def small(model: VARGPT) -> VARGPT:
    other = small_model(7)
    other.image_tokenizer.load_state_dict(model.image_tokenizer.state_dict())
    return other


# FastVAR


def test_the_tokens_farthest_from_the_mean_are_kept() -> None:
    map_1lC = torch.tensor([[[0.0, 0.0], [0.0, 5.0], [0.0, 0.0], [-9.0, 0.0]]])
    assert standing_out(map_1lC, 2).tolist() == [[1, 3]]
    assert standing_out(map_1lC, 1).tolist() == [[3]]


def test_the_others_are_filled_in_from_the_enlarged_map() -> None:
    before_1mC = torch.tensor([[[1.0], [2.0], [3.0], [4.0]]])
    rest_1lC = enlarged(before_1mC, (2, 2), (4, 4))
    rows = [[1.0, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
    assert rest_1lC.view(4, 4).tolist() == rows
    kept = Filled(torch.tensor([[0, 15]]), rest_1lC)
    x_1lC = torch.arange(16.0).view(1, 16, 1)
    assert kept.take(x_1lC).flatten().tolist() == [0, 15]
    filled = kept.restore(torch.tensor([[[7.0], [8.0]]])).view(4, 4).tolist()
    assert filled == [[7.0, *rows[0][1:]], rows[1], rows[2], [*rows[3][:3], 8.0]]


def test_fewer_tokens_are_computed_and_cached(model: VARGPT, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    attend = ScaleSelfAttention.forward

    def counted(attention: ScaleSelfAttention, modulated: Any, slices: Any, mask: Any, cache: Any) -> Tensor:
        y_BLC = attend(attention, modulated, slices, mask, cache)
        seen.append((y_BLC.shape[1], cache.keys_BHLD.shape[2]))
        return y_BLC

    monkeypatch.setattr(ScaleSelfAttention, "forward", counted)
    found = steered(model, {"fastvar": {"ratios": [0, 0, 0.5, 0.75]}})
    assert seen[1::2] == [(1, 1), (4, 5), (4, 9), (4, 13)], "the second block: tokens, and what its cache then holds"
    assert seen[::2] == [(1, 1), (4, 5), (9, 14), (16, 30)], "the first block computes all"
    without = plain(model)
    assert torch.equal(found.drawing.idx_BL[:, :5], without.idx_BL[:, :5])
    assert found.drawing.logits_BLV is not None and without.logits_BLV is not None
    assert not torch.equal(found.drawing.logits_BLV[:, 5:], without.logits_BLV[:, 5:])


def test_pruning_goes_with_a_second_half_that_ends(model: VARGPT) -> None:
    parts = {"fastvar": {"ratios": [0, 0, 0.5, 0.5]}, "guided_scales": {"stop": 3}}
    assert steered(model, parts).drawing.idx_BL.shape == (2, 30)


def test_hooks_that_keep_everything_change_no_bit(model: VARGPT) -> None:
    cache, hooked = model.visual_decoder.new_cache(1), DecoderCache.hooked(2, [Hooks()])
    condition = model.visual_decoder.condition(torch.tensor([103]))
    with torch.no_grad():
        for k, part in enumerate(model.schedule.slices):
            x_1lC = torch.randn(1, part.stop - part.start, 32)
            one, two = (model.visual_decoder.decode(x_1lC, condition, each, k) for each in (cache, hooked))
            assert torch.equal(one, two)


# ScaleKV


def test_the_grid_s_own_tokens_and_what_they_look_at_are_kept() -> None:
    assert grid_of((4, 4)) == list(range(16)) and grid_of((2, 2)) == [0, 1, 2, 3]
    assert grid_of((8, 4)) == [row * 4 + column for row in (1, 3, 5, 7) for column in range(4)]
    q_11lD = torch.tensor([[[[1.0, 0.0]] * 4]])
    keys = torch.zeros(1, 1, 24, 2)
    keys[0, 0, 10, 0] = 5.0  # seen, and so are its two neighbours on each side
    assert looked_at(q_11lD, keys, [0, 3], 7).tolist() == [[8, 9, 10, 11, 12, 20, 23]]
    assert looked_at(q_11lD, keys, [0, 1, 2, 3], 24).tolist() == [list(range(24))]


def test_caches_stay_below_their_capacities() -> None:
    deep = small_model()
    facts = deep.facts(deep.sampling_settings())
    many = Facts(((1, 1), (4, 4), (6, 6), (8, 8)), 2, facts.vocabulary, facts.cfg)
    from vargpt_lightning.models.parts.scalekv import ScaleKV, _Budget

    hooks = _Budget(ScaleKV(20).each(many), many.shapes)
    kept: list[int] = []
    keys = torch.empty(1, 2, 0, 8)
    for k, (height, width) in enumerate(many.shapes):
        new = torch.randn(1, 2, height * width, 8)
        keys, values = hooks.cache(0, k, new, torch.cat((keys, new), 2), torch.cat((keys, new), 2))
        assert torch.equal(keys, values)
        kept.append(keys.shape[2])
    assert kept == [1, 17, 20, 84], "the last scale's are looked at no more, and need no choice"


# Scales that are left out


def test_left_out_scales_leave_the_picture_as_it_is(model: VARGPT, monkeypatch: pytest.MonkeyPatch) -> None:
    scales: list[int] = []
    decode = VisualDecoder.decode

    def counted(decoder: VisualDecoder, x_BLC: Tensor, *more: Any) -> Tensor:
        scales.append(x_BLC.shape[1])
        return decode(decoder, x_BLC, *more)

    monkeypatch.setattr(VisualDecoder, "decode", counted)
    found, without = steered(model, {"skip_scales": {"last": 2}}), plain(model)
    assert scales == [1, 4, 1, 4, 9, 16] and found.filled == 5
    assert torch.equal(found.drawing.idx_BL[:, :5], without.idx_BL[:, :5])
    shown = model.image_tokenizer.f_hat_per_scale(without.idx_BL)[1]
    torch.testing.assert_close(found.drawing.f_hat_BCHW, shown)
    codes_VC = model.image_tokenizer.embed_codes(torch.arange(48))
    assert set(found.drawing.idx_BL[:, 5:].flatten().tolist()) == {int(codes_VC.norm(dim=-1).argmin())}
    with pytest.raises(UserError, match=r"skip_scales.last: got 4, expected less than the 4 scales"):
        model.sampling_settings(parts={"skip_scales": {"last": 4}})


SHORT = [{"skip_scales": {"last": 1}}, *({"code": {"model": "small", "scales": scales}} for scales in (0, 2))]


@pytest.mark.parametrize("parts", SHORT)
def test_answers_go_on_behind_what_the_cache_does_not_hold(model: VARGPT, small: VARGPT, parts: Any) -> None:
    """Text after such a picture stands at the positions of a whole one, and sees what was computed of it."""
    visual = SamplingSettings(parts=parts)
    settings = GenerationSettings(max_new_tokens=6, max_images=2, visual=visual, seed=3)
    prompt = Prompt([*PROMPT, IDS.image_gen_start])
    positions: list[int] = []
    run = LanguageCache.run

    def noted(cache: LanguageCache, embeds: Tensor, slots: Tensor, *more: Any, **named: Any) -> Tensor:
        given = named.get("positions_Rn")
        if embeds.shape[1] == 1 and cache.model is model.language_model and cache.rows == 1:
            positions.append(int((slots if given is None else given).flatten()[0]))
        return run(cache, embeds, slots, *more, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LanguageCache, "run", noted)
        (answer,) = generate(model, [prompt], str, settings, sources=Others(small=small))
    assert len(answer.pictures) >= 1 and answer.pictures[0].indices.shape == (30,)
    assert positions[0] == len(PROMPT) + 31, "the end token, behind the start token and 30 others"


# CoDe


def test_all_scales_for_one_or_the_other_model(model: VARGPT, small: VARGPT) -> None:
    sources = Others(small=small)
    assert_same(steered(model, {"code": {"model": "small", "scales": 4}}, sources=sources), plain(model))
    assert_same(steered(model, {"code": {"model": "small", "scales": 0}}, sources=sources), plain(small))


def test_the_other_model_goes_on_from_the_first_ones_picture(model: VARGPT, small: VARGPT) -> None:
    found = steered(model, {"code": {"model": "small", "scales": 2}}, sources=Others(small=small), greedy=True)
    first = plain(model, greedy=True)
    assert torch.equal(found.drawing.idx_BL[:, :5], first.idx_BL[:, :5]) and found.filled == 5
    itself = steered(model, {"code": {"model": "same", "scales": 2}}, sources=Others(same=model), greedy=True)
    assert torch.equal(itself.drawing.idx_BL, first.idx_BL)
    with pytest.raises(UserError, match=r"code.scales: got 5, expected at most the 4"):
        model.sampling_settings(parts={"code": {"model": "small", "scales": 5}})


# Weights of 8 bits


def test_products_in_8_bits_are_near() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(64, 32), torch.randn(7, 64)
    for form in (Int8Linear, Int8WeightLinear):
        near = form(layer)
        assert (near(x) - layer(x)).abs().max() < 0.05
    assert Int8WeightLinear(layer).weight_NC.dtype == torch.int8


def test_the_copy_shares_all_other_weights_and_follows_changes(model: VARGPT) -> None:
    decoder = small_model().visual_decoder
    made = int8_copy(decoder, 1)
    assert made is int8_copy(decoder, 1) and made is not int8_copy(decoder, 2)
    assert made.get_submodule("head").weight is decoder.head.weight
    assert made.layers()[1].ffn.fc1.weight is decoder.layers()[1].ffn.fc1.weight
    assert isinstance(made.layers()[0].ffn.fc1, Int8Linear) and isinstance(decoder.layers()[0].ffn.fc1, nn.Linear)
    with torch.no_grad():
        decoder.layers()[0].ffn.fc1.weight.add_(1)
    assert made is not int8_copy(decoder, 1)


def test_logits_in_8_bits_are_near(model: VARGPT) -> None:
    found, without = steered(model, {"int8": {}}, greedy=True).drawing, plain(model, greedy=True)
    assert found.logits_BLV is not None and without.logits_BLV is not None
    change = (found.logits_BLV - without.logits_BLV)[:, :1].abs().max()
    assert 0 < change < 0.1 * without.logits_BLV[:, :1].std()
