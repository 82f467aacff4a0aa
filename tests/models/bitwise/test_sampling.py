"""Drawing bits: the golden drawings of the authors' sampler, and what each setting does."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

from tests.golden import Golden, load_golden
from tests.models.bitwise.cases import (
    golden_decoder,
    golden_schedule,
    small_decoder,
    small_text,
    small_tokenizer,
    token_bits,
    woken,
)
from vargpt_lightning.models.bitwise.sampling import BitRules, BitSampling
from vargpt_lightning.models.bitwise.text import TextRows
from vargpt_lightning.models.core.scales import ScaleSchedule
from vargpt_lightning.models.decoder.sampling import Drawing
from vargpt_lightning.models.tokenizer.bit_tokenizer import BitTokenizer
from vargpt_lightning.utils.errors import UserError

CASES = (
    "sq", "r15_lists", "r15_seeded", "r15_layer", "r15t_nocfg_greedy", "r15_negative", "r15_leak2",
    "r15_rope_hazard", "r15_rope_right", "patchify_r15s",
)  # fmt: skip


@cache
def gold() -> Golden:
    return load_golden("b3_infinity_gen")


def drawn(name: str, decoder: Any = None, **changes: Any) -> Drawing:
    """A golden drawing again; `changes` are arguments of `generate` or of the settings."""
    case, tensors = gold().meta["cases"][name], gold().under(f"{name}.")
    settings = {
        "cfg": tuple(case["cfg_list"]),
        "temperature": tuple(case["tau_list"]),
        "top_k": case["top_k"],
        "top_p": case["top_p"],
        "guidance_at": tuple(case["cfg_insertion_layer"]),
    }
    settings = {key: changes.pop(key, value) for key, value in settings.items()}
    settings["greedy"] = changes.pop("greedy", False)
    schedule = golden_schedule(case)
    arguments: dict[str, Any] = {"uniforms_BLD": tensors.get("u")}
    if "u" not in tensors:
        arguments["generator"] = torch.Generator().manual_seed(case["g_seed"])
    if case["negative_lens"]:
        arguments["negative"] = TextRows(tensors["neg_text"], case["negative_lens"])
    if case["gt_leak"]:
        given = schedule.slices[case["gt_leak"] - 1].stop
        arguments["given_BnD"] = token_bits(tensors["bits"], case)[:, :given]
    decoder = golden_decoder(gold(), name).eval() if decoder is None else decoder
    text = TextRows(tensors["text"], case["text_lens"])
    sampling = BitSampling(**settings)
    return decoder.generate(
        small_tokenizer(case), text, sampling=sampling, keep_logits=True, **{**arguments, **changes}
    )


@pytest.mark.parametrize("name", CASES)
def test_drawings_are_those_of_the_published_code(name: str) -> None:
    case, tensors = gold().meta["cases"][name], gold().under(f"{name}.")
    recorded = gold().meta["torch"].split("+")[0]
    if "u" not in tensors and torch.__version__.split("+")[0] != recorded:
        pytest.skip(f"the random streams were recorded with torch {recorded}")
    found = drawn(name)
    assert torch.equal(found.idx_BL, token_bits(tensors["bits"], case))
    torch.testing.assert_close(found.logits_BLV[:, ::3], tensors["logits"], rtol=0, atol=1e-4)
    torch.testing.assert_close(found.f_hat_BCHW, tensors["summed"], rtol=0, atol=1e-6)


# The rotary hazard


@pytest.mark.parametrize(("name", "off"), [("r15_rope_right", False), ("r15_rope_hazard", True)])
def test_tokens_turned_from_zero_leave_teacher_forcing(name: str, off: bool) -> None:
    """Without the scale's place, drawing is another model than the trained one from the second scale on."""
    case, model = gold().meta["cases"][name], golden_decoder(gold(), name).eval()
    schedule, found = golden_schedule(case), drawn(name)
    text = TextRows(gold().under(f"{name}.")["text"], case["text_lens"])
    inputs_BLD = small_tokenizer(case).next_scale_inputs(found.idx_BL)
    with torch.no_grad():
        forced_BLV = model(text, inputs_BLD, schedule=schedule)
    expected = case["max_abs_difference_to_teacher_forced_logits_per_scale"]
    for part, difference in zip(schedule.slices, expected, strict=True):
        gap = (forced_BLV[:, part] - found.logits_BLV[:, part]).abs().max().item()
        assert gap == pytest.approx(difference, abs=2e-5)
    assert (max(expected) > 0.1) is off


# Settings


def test_greedy_is_top_k_of_one() -> None:
    found = drawn("r15t_nocfg_greedy", greedy=True, top_k=0, uniforms_BLD=None)
    assert torch.equal(found.idx_BL, drawn("r15t_nocfg_greedy").idx_BL)


def rules(**settings: Any) -> BitRules:
    return BitRules(BitSampling(**{"cfg": 1.0, "temperature": 1.0, "top_p": 0.0, **settings}))


def test_temperature_comes_before_guidance() -> None:
    cond, other = torch.tensor([[[2.0, -1.0]]]), torch.tensor([[[1.0, 3.0]]])
    found = rules(cfg=(3.0, 1.0), temperature=(0.5, 1.0)).guide(cond, other, 0, 2)
    torch.testing.assert_close(found, 3 * (cond / 0.5) - 2 * (other / 0.5))
    torch.testing.assert_close(rules(cfg=(3.0, 1.0)).guide(cond, None, 1, 2), cond)


def test_top_k_does_nothing_to_two_values_and_top_p_makes_rare_ones_certain() -> None:
    tokenizer = BitTokenizer(scales=(1,), channels=8, channel_multipliers=(1,), residual_blocks=1, bits=2)
    rare = torch.tensor([0.97, 0.03]).log()  # of value 1: 3 %
    logits_11V = torch.stack((rare, torch.tensor([0.96, 0.04]).log())).view(1, 1, 4)
    uniforms_11D = torch.full((1, 1, 2), 0.98)
    for settings, bits in (({}, [1, 1]), ({"top_k": 900}, [1, 1]), ({"top_p": 0.9699}, [0, 1]), ({"top_k": 1}, [0, 0])):
        own = rules(**settings)._replace(uniforms_BLD=uniforms_11D)
        assert own.draw(logits_11V, tokenizer, 0, 1)[1].flatten().tolist() == bits


def test_guidance_inside_of_the_decoder_is_none_on_the_logits() -> None:
    inside, on_logits = drawn("r15_layer"), drawn("r15_layer", guidance_at=(0,))
    assert not torch.equal(inside.idx_BL, on_logits.idx_BL)
    unguided = drawn("r15_layer", cfg=1.0)
    assert not torch.equal(inside.logits_BLV, unguided.logits_BLV)


def test_scales_of_cfg_1_are_those_of_the_prompt_alone() -> None:
    """The first scale of r15_lists has cfg 1."""
    guided, alone = drawn("r15_lists"), drawn("r15_lists", cfg=1.0)
    torch.testing.assert_close(guided.logits_BLV[:, :1], alone.logits_BLV[:, :1])
    assert not torch.equal(guided.logits_BLV[:, 1:5], alone.logits_BLV[:, 1:5])


def test_no_second_half_without_guidance(monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = golden_decoder(gold(), "sq").eval(), []
    decode = model.decode
    monkeypatch.setattr(model, "decode", lambda x, *rest, **more: rows.append(len(x)) or decode(x, *rest, **more))
    drawn("sq", model, cfg=1.0)
    drawn("sq", model)
    assert rows == [2] * 5 + [4] * 5


def test_without_a_negative_prompt_there_are_as_many_rows_as_the_prompt_has() -> None:
    model, case = golden_decoder(gold(), "r15_lists").eval(), gold().meta["cases"]["r15_lists"]
    rows = TextRows(torch.cat([model.cfg_uncond[:n] for n in case["text_lens"]]).detach(), case["text_lens"])
    assert torch.equal(drawn("r15_lists", model, negative=rows).logits_BLV, drawn("r15_lists", model).logits_BLV)


def test_given_scales_use_up_random_numbers() -> None:
    """So that what follows is drawn with the numbers that it has without them."""
    case = gold().meta["cases"]["r15_seeded"]
    given = drawn("r15_seeded").idx_BL[:, :5]
    again = drawn("r15_seeded", given_BnD=given, generator=torch.Generator().manual_seed(case["g_seed"]))
    assert torch.equal(again.idx_BL, drawn("r15_seeded").idx_BL)


def test_pictures_with_streams_of_their_own_do_not_depend_on_their_neighbours() -> None:
    model, text = woken(small_decoder()), small_text()
    tokenizer = BitTokenizer(scales=(1, 2, (3, 2)), channels=8, channel_multipliers=(1,), residual_blocks=1, bits=6)
    settings = BitSampling(cfg=2.0, temperature=1.0)
    together = model.generate(tokenizer, text, sampling=settings, generator=[seeded(4), seeded(5)])
    for row, rows_TW in enumerate(text.prompts()):
        alone = TextRows(rows_TW, (len(rows_TW),))
        found = model.generate(tokenizer, alone, sampling=settings, generator=seeded(4 + row))
        assert torch.equal(found.idx_BL[0], together.idx_BL[row])


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_text_is_read_once_a_drawing() -> None:
    model, calls = golden_decoder(gold(), "sq").eval(), []
    for block in model.layers():
        block.ca.mat_kv.register_forward_hook(lambda *_: calls.append(1))
    drawn("sq", model)
    assert len(calls) == 4


# What does not fit


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"cfg": (3.0, 3.0)}, r"^cfg: got 2 numbers, expected one for each"),
        ({"temperature": (1.0,)}, r"^temperature: got 1 numbers"),
        ({"guidance_at": (-5,)}, r"^guidance_at: got -5, expected no less than -4"),
        ({"guidance_at": (1,)}, r"^guidance_at: got \[1\], expected 0"),
        ({"temperature": 0.0}, r"^temperature: got 0\.0, expected"),
        ({"cfg": float("nan")}, r"^cfg: got nan, expected"),
        ({"top_p": 1.5}, r"^top_p: got 1\.5"),
        ({"top_k": -1}, r"^top_k: got -1"),
    ],
)
def test_settings_that_fit_no_drawing_are_refused(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(UserError, match=match):
        drawn("sq", **settings)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"negative": small_text((1,), width=256)}, "^negative: got 1 prompts, expected 2"),
        ({"given_BnD": torch.zeros(2, 4, 16, dtype=torch.long)}, r"^given bits: got shape \(2, 4, 16\), expected"),
        ({"uniforms_BLD": torch.zeros(2, 5, 16)}, r"^uniforms: got shape \(2, 5, 16\), expected \(2, 121, 16\)"),
    ],
)
def test_what_does_not_fit_the_schedule_is_refused(arguments: dict[str, Any], match: str) -> None:
    with pytest.raises(UserError, match=match):
        drawn("sq", **arguments)


def test_a_schedule_of_ones_own_is_drawn() -> None:
    model = woken(small_decoder(bits=8))
    for scales in ((1, 2, 3), ((2, 1), (2, 3), (5, 3)), (4,)):
        tokenizer = BitTokenizer(scales=scales, channels=8, channel_multipliers=(1,), residual_blocks=1, bits=8)
        found = model.generate(tokenizer, small_text(), sampling=BitSampling(), generator=seeded(0))
        schedule = ScaleSchedule(scales)
        assert found.idx_BL.shape == (2, schedule.num_tokens, 8)
        assert found.f_hat_BCHW.shape == (2, 8, *schedule.final_shape)
