"""Filters, draws and guidance against the published code's values, and the loop over the scales."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.golden import Golden, load_golden
from vargpt_lightning.models.decoder.sampling import (
    SamplingSettings,
    ScaleStep,
    filter_logits,
    guidance_weight,
    guided_logits,
    gumbel_softmax,
    next_scale_loop,
    sample_indices,
)
from vargpt_lightning.models.tokenizer.image_tokenizer import ImageTokenizer
from vargpt_lightning.utils.errors import UserError

FILTERS = [(0, 0.0), (10, 0.0), (0, 0.9), (20, 0.95), (1, 0.0), (64, 0.5)]
OPEN = SamplingSettings(top_k=0, top_p=0.0, cfg=0.0)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def gold() -> Golden:
    return load_golden("a2_sampling_helpers")


@pytest.fixture
def same_torch(gold: Golden) -> None:
    recorded = gold.meta["env"]["torch"].split("+")[0]
    if torch.__version__.split("+")[0] != recorded:
        pytest.skip(f"the random streams were recorded with torch {recorded}")


@pytest.fixture(scope="module")
def tokenizer() -> ImageTokenizer:
    torch.manual_seed(0)
    model = ImageTokenizer(
        scales=(1, 2, 4), channels=8, channel_multipliers=(1, 2), residual_blocks=1, code_size=4, vocabulary=16
    )
    torch.nn.init.normal_(model.quantize.embedding.weight)
    return model.eval()


def fixed_step(tokenizer: ImageTokenizer, batch: int, inputs: list[Tensor | None] | None = None) -> ScaleStep:
    """Logits that depend on the scale and, weakly, on the features so far; collects the inputs of all scales."""
    table_LV = torch.randn(tokenizer.schedule.num_tokens, tokenizer.vocabulary, generator=seeded(1))

    def step(k: int, input_BlC: Tensor | None) -> tuple[Tensor, Tensor]:
        if inputs is not None:
            inputs.append(input_BlC)
        logits_BlV = table_LV[tokenizer.schedule.slices[k]].expand(batch, -1, -1)
        if input_BlC is not None:
            logits_BlV = logits_BlV + input_BlC.sum(dim=-1, keepdim=True).sin() * table_LV[0]
        return logits_BlV, -logits_BlV

    return step


# Filters and draws


@pytest.mark.parametrize(("top_k", "top_p"), FILTERS)
def test_top_k_and_top_p_remove_what_the_published_code_removes(gold: Golden, top_k: int, top_p: float) -> None:
    logits_BlV = gold.tensors["logits"]
    before_BlV = logits_BlV.clone()
    filtered_BlV = filter_logits(logits_BlV, top_k, top_p)
    removed_BlV = gold.tensors[f"mask_k{top_k}_p{top_p}"]
    assert torch.equal(filtered_BlV, logits_BlV.masked_fill(removed_BlV, -torch.inf))
    assert torch.equal(logits_BlV, before_BlV)


@pytest.mark.parametrize(("top_k", "top_p"), FILTERS)
@pytest.mark.usefixtures("same_torch")
def test_same_generator_draws_the_published_indices(gold: Golden, top_k: int, top_p: float) -> None:
    filtered_BlV = filter_logits(gold.tensors["logits"], top_k, top_p)
    idx_Bl = sample_indices(filtered_BlV, generator=seeded(3))
    assert torch.equal(idx_Bl, gold.tensors[f"idx_k{top_k}_p{top_p}"])


def test_ties_at_the_kth_value_are_all_kept(gold: Golden) -> None:
    filtered_BlV = filter_logits(gold.tensors["ties_in"], top_k=2)
    assert torch.equal(filtered_BlV.isinf(), gold.tensors["ties_mask_k2"])
    assert (~filtered_BlV.isinf()).sum() > 2


def test_top_k_above_the_vocabulary_keeps_all(gold: Golden) -> None:
    assert torch.equal(filter_logits(gold.tensors["logits"], top_k=900), gold.tensors["logits"])


def test_top_p_never_removes_the_likeliest(gold: Golden) -> None:
    filtered_BlV = filter_logits(gold.tensors["logits"], top_p=1e-6)
    assert torch.equal((~filtered_BlV.isinf()).sum(dim=-1), torch.ones(2, 6, dtype=torch.long))
    assert torch.equal(filtered_BlV.argmax(dim=-1), gold.tensors["logits"].argmax(dim=-1))


@pytest.mark.usefixtures("same_torch")
def test_gumbel_softmax_is_the_published_one(gold: Golden) -> None:
    weights_BlV = gumbel_softmax(gold.tensors["logits"], 0.5, seeded(4))
    torch.testing.assert_close(weights_BlV, gold.tensors["gumbel_tau.5_seed4"], rtol=1e-5, atol=1e-6)


def test_gumbel_softmax_gives_nothing_to_removed_codes(gold: Golden) -> None:
    filtered_BlV = filter_logits(gold.tensors["logits"], top_k=3)
    weights_BlV = gumbel_softmax(filtered_BlV, 0.5, seeded(0))
    assert (weights_BlV[filtered_BlV.isinf()] == 0).all()
    torch.testing.assert_close(weights_BlV.sum(dim=-1), torch.ones(2, 6))


@pytest.mark.parametrize("draw", [lambda x, g: sample_indices(x, generator=g), lambda x, g: gumbel_softmax(x, 0.5, g)])
def test_a_row_with_its_own_generator_does_not_see_its_neighbours(draw: Any) -> None:
    logits_BlV = torch.randn(5, 7, 32, generator=seeded(0))
    together = draw(logits_BlV, [seeded(s) for s in range(5)])
    for row in range(5):
        assert torch.equal(together[row : row + 1], draw(logits_BlV[row : row + 1], [seeded(row)]))
        assert torch.equal(together[row : row + 1], draw(logits_BlV[row : row + 1], seeded(row)))


def test_one_generator_for_each_row_or_an_error() -> None:
    with pytest.raises(ValueError, match="got a list of 2, expected one for each of 3 rows"):
        sample_indices(torch.zeros(3, 1, 4), generator=[seeded(0), seeded(1)])


# Guidance and settings


def test_guidance_grows_from_nothing_to_cfg_or_is_constant() -> None:
    linear, constant = SamplingSettings(cfg=1.5), SamplingSettings(cfg=1.5, cfg_schedule="constant")
    assert [guidance_weight(linear, k, 4) for k in range(4)] == [0, 0.5, 1.0, 1.5]
    assert [guidance_weight(constant, k, 4) for k in range(4)] == [1.5] * 4
    assert guidance_weight(linear, 0, 1) == 0


def test_guided_logits_leave_the_unconditional_ones_behind() -> None:
    cond, uncond = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[0.5, 4.0]]])
    assert torch.equal(guided_logits(cond, uncond, 2.0), torch.tensor([[[2.0, -2.0]]]))
    assert torch.equal(guided_logits(cond, uncond, 0.0), cond)
    assert guided_logits(cond.bfloat16(), None, 2.0).dtype == torch.float32


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"top_k": -1}, "top_k"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_p": -0.1}, "top_p"),
        ({"cfg": -1.0}, "cfg"),
        ({"cfg": float("nan")}, "cfg"),
        ({"cfg_schedule": "cosine"}, "cfg_schedule"),
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"greedy": True, "smooth": True}, "smooth"),
    ],
)
def test_a_setting_out_of_range_is_named(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError, match=rf"{key}\b.*expected"):
        SamplingSettings(**settings)


# The loop


def test_the_loop_feeds_each_scale_what_the_scales_before_show(tokenizer: ImageTokenizer) -> None:
    inputs: list[Tensor | None] = []
    drawing = next_scale_loop(fixed_step(tokenizer, 2, inputs), tokenizer, OPEN, seeded(0))
    assert inputs[0] is None
    assert drawing.idx_BL.shape == (2, tokenizer.schedule.num_tokens)
    fed_BLC = torch.cat([given for given in inputs if given is not None], dim=1)
    torch.testing.assert_close(fed_BLC, tokenizer.next_scale_inputs(drawing.idx_BL))
    torch.testing.assert_close(drawing.f_hat_BCHW, tokenizer.f_hat_per_scale(drawing.idx_BL)[-1])


def test_the_loop_keeps_guided_logits_on_request(tokenizer: ImageTokenizer) -> None:
    settings = SamplingSettings(top_k=1, top_p=0.0, cfg=2.0, temperature=3.0)
    inputs: list[Tensor | None] = []
    step = fixed_step(tokenizer, 2, inputs)
    drawing = next_scale_loop(step, tokenizer, settings, keep_logits=True)
    # Without the condition the logits are the opposite, so that guidance multiplies them by 1 + 2 t.
    expected = [step(k, given)[0] * (1 + 2 * t) for k, (given, t) in enumerate(zip(inputs[:3], (0, 1, 2), strict=True))]
    torch.testing.assert_close(drawing.logits_BLV, torch.cat(expected, dim=1))
    assert next_scale_loop(step, tokenizer, settings).logits_BLV is None


def test_rows_with_their_own_generators_are_drawn_as_if_alone(tokenizer: ImageTokenizer) -> None:
    together = next_scale_loop(fixed_step(tokenizer, 3), tokenizer, OPEN, [seeded(s) for s in range(3)])
    for row in range(3):
        alone = next_scale_loop(fixed_step(tokenizer, 1), tokenizer, OPEN, seeded(row))
        assert torch.equal(alone.idx_BL, together.idx_BL[row : row + 1])
    assert not torch.equal(together.idx_BL[0], together.idx_BL[1])


def test_a_low_temperature_draws_the_likeliest(tokenizer: ImageTokenizer) -> None:
    greedy = next_scale_loop(fixed_step(tokenizer, 2), tokenizer, SamplingSettings(cfg=0.0, greedy=True))
    cold = SamplingSettings(top_k=0, top_p=0.0, cfg=0.0, temperature=1e-4)
    assert torch.equal(next_scale_loop(fixed_step(tokenizer, 2), tokenizer, cold, seeded(0)).idx_BL, greedy.idx_BL)
    hot = next_scale_loop(fixed_step(tokenizer, 2), tokenizer, OPEN, seeded(0))
    assert not torch.equal(hot.idx_BL, greedy.idx_BL)


def test_greedy_takes_the_likeliest_and_uses_no_randomness(tokenizer: ImageTokenizer) -> None:
    generator = seeded(3)
    before = generator.get_state()
    settings = SamplingSettings(cfg=0.0, greedy=True)
    drawing = next_scale_loop(fixed_step(tokenizer, 2), tokenizer, settings, generator, keep_logits=True)
    assert drawing.logits_BLV is not None
    assert torch.equal(drawing.idx_BL, drawing.logits_BLV.argmax(dim=-1))
    assert torch.equal(generator.get_state(), before)


def test_smoothing_builds_the_picture_from_mixtures(tokenizer: ImageTokenizer) -> None:
    smooth = SamplingSettings(top_k=0, top_p=0.0, cfg=0.0, smooth=True)
    drawing = next_scale_loop(fixed_step(tokenizer, 2), tokenizer, smooth, seeded(0))
    hard_BCHW = tokenizer.f_hat_per_scale(drawing.idx_BL)[-1]
    assert (drawing.f_hat_BCHW - hard_BCHW).abs().max() > 0.1
    again = next_scale_loop(fixed_step(tokenizer, 2), tokenizer, smooth, seeded(0))
    assert torch.equal(again.f_hat_BCHW, drawing.f_hat_BCHW)


def test_guidance_wants_logits_without_the_condition(tokenizer: ImageTokenizer) -> None:
    step = fixed_step(tokenizer, 1)
    with pytest.raises(ValueError, match=r"cfg: got 1\.5, expected 0 where scale 0"):
        next_scale_loop(lambda k, given: (step(k, given)[0], None), tokenizer, SamplingSettings(cfg=1.5))


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": 1e-300},
        {"temperature": 1e-40},
        {"temperature": 1e308},
        {"temperature": float("nan")},
        {"cfg": 1e308},
        {"cfg": 101.0},
        {"cfg": float("nan")},
        {"cfg": float("inf")},
        {"top_p": float("nan")},
        {"top_k": -1},
        {"top_k": float("nan")},
    ],
)
def test_values_that_leave_no_numbers_are_refused_with_their_range(wrong: Any) -> None:
    ((key, value),) = wrong.items()
    with pytest.raises(UserError, match=f"{key}: got {value!r}, expected .*[0-9]".replace("+", ".")):
        SamplingSettings(**wrong)


@pytest.mark.parametrize("temperature", [1e-4, 1e3])
@pytest.mark.parametrize("cfg", [0.0, 100.0])
def test_values_at_the_end_of_their_range_leave_numbers(temperature: float, cfg: float) -> None:
    SamplingSettings(temperature=temperature, cfg=cfg)
    logits_BlV = guided_logits(torch.randn(1, 1, 9) * 100, torch.randn(1, 1, 9) * 100, cfg) / temperature
    chances_BlV = filter_logits(logits_BlV, 10**30, 0.9).softmax(dim=-1)
    assert torch.isfinite(chances_BlV).all()


def test_ours_is_left_out_of_records_so_that_earlier_ones_are_known_again() -> None:
    assert "sampler" not in SamplingSettings().recorded() and SamplingSettings().recorded()["top_k"] == 900
