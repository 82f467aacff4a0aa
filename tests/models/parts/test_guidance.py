"""Parts of guidance, against the rule that each is said to follow."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.models.cases import DRAWN, SCALE_OF, make_batch, small_model
from tests.models.parts.drawing import PROMPT, Others, plain, steered, tiny
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.models.decoder.visual_decoder import VisualDecoder
from vargpt_lightning.models.parts.certainty import Certainty
from vargpt_lightning.models.parts.schedule import Schedule
from vargpt_lightning.models.parts.spatial import cosines, enlarged

GREEDY: dict[str, Any] = {"greedy": True, "cfg": 2.0}
WEIGHT_L1 = torch.tensor([2.0 * k / 3 for k in SCALE_OF])[:, None]
"""Guidance weights of all tokens, with `cfg` 2 that grows linearly."""


@pytest.fixture(scope="module")
def model() -> VARGPT:
    return tiny()


@pytest.fixture(scope="module")
def worse(model: VARGPT) -> VARGPT:
    """Other weights with the same image tokenizer."""
    other = small_model(7)
    other.image_tokenizer.load_state_dict(model.image_tokenizer.state_dict())
    return other


def close(actual: Tensor | None, expected: Tensor) -> None:
    assert actual is not None
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)


def forced(model: VARGPT, prompt: list[int], idx_BL: Tensor) -> Tensor:
    """Logits of codes behind a prompt, all scales at once."""
    batch = {**make_batch([[*prompt, *DRAWN]] * len(idx_BL)), "drawn_indices": idx_BL}
    with torch.no_grad():
        logits_BLV = model(batch).image_logits
    assert logits_BLV is not None
    return logits_BLV


def decoded_rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows the decoder is given each time."""
    rows: list[int] = []
    decode = VisualDecoder.decode

    def counted(decoder: VisualDecoder, x_BLC: Tensor, *more: Any) -> Tensor:
        rows.append(len(x_BLC))
        return decode(decoder, x_BLC, *more)

    monkeypatch.setattr(VisualDecoder, "decode", counted)
    return rows


@pytest.mark.parametrize(
    ("shape", "shares"),
    [("linear", [0, 0.25, 0.5, 0.75, 1]), ("constant", [1] * 5), ("cosine", [0, 0.14645, 0.5, 0.85355, 1])],
)
def test_a_schedule_has_its_shape(shape: Any, shares: list[float]) -> None:
    assert [Schedule(shape).share(k, 5) for k in range(5)] == pytest.approx(shares, abs=1e-5)


def test_a_constant_schedule_is_the_settings_constant_one(model: VARGPT) -> None:
    found = steered(model, {"schedule": {"shape": "constant"}}).drawing
    assert torch.equal(found.idx_BL, plain(model, cfg_schedule="constant").idx_BL)


def test_weights_are_those_of_the_scales(model: VARGPT) -> None:
    found = steered(model, {"weights": {"values": [0, 0, 2, 0]}}, **GREEDY).drawing
    zero = steered(model, {"weights": {"values": [0, 0, 0, 0]}}, **GREEDY).drawing
    assert found.logits_BLV is not None and zero.logits_BLV is not None
    close(found.logits_BLV[:, :5], zero.logits_BLV[:, :5])
    assert (found.logits_BLV - zero.logits_BLV)[:, 5:14].abs().max() > 0.1
    close(zero.logits_BLV, forced(model, PROMPT, zero.idx_BL))


def test_after_the_guided_scales_the_second_half_is_not_computed(
    model: VARGPT, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    decode = VisualDecoder.decode
    monkeypatch.setattr(
        VisualDecoder, "decode", lambda self, x, *more: (rows.append(len(x)), decode(self, x, *more))[1]
    )
    found = steered(model, {"guided_scales": {"start": 1, "stop": 3}}, **GREEDY).drawing
    assert rows == [4, 4, 4, 2], "rows of the decoder at each scale"
    rows.clear()
    steered(model, {"guided_scales": {"start": 2, "stop": 2}}, **GREEDY)
    assert rows == [2, 2, 2, 2]
    listed = steered(model, {"weights": {"values": [0, 2 / 3, 4 / 3, 0]}}, **GREEDY).drawing
    assert torch.equal(found.idx_BL, listed.idx_BL)
    assert listed.logits_BLV is not None
    close(found.logits_BLV, listed.logits_BLV)


def test_a_negative_prompt_takes_the_place_of_none(model: VARGPT) -> None:
    found = steered(model, {"negative": {"prompt": "grey"}}, **GREEDY).drawing
    wanted, unwanted = (forced(model, ids, found.idx_BL) for ids in (PROMPT, Others().prompt_ids("grey")))
    close(found.logits_BLV, (1 + WEIGHT_L1) * wanted - WEIGHT_L1 * unwanted)
    assert (wanted - unwanted).abs().max() > 0.1


def test_autoguidance_leads_away_from_the_worse_model(model: VARGPT, worse: VARGPT) -> None:
    found = steered(model, {"autoguidance": {"model": "worse"}}, sources=Others(worse=worse), **GREEDY).drawing
    good, bad = forced(model, PROMPT, found.idx_BL), forced(worse, PROMPT, found.idx_BL)
    close(found.logits_BLV, (1 + WEIGHT_L1) * good - WEIGHT_L1 * bad)


def test_autoguidance_computes_no_second_half_of_its_own(model: VARGPT, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    decode = VisualDecoder.decode
    monkeypatch.setattr(
        VisualDecoder, "decode", lambda self, x, *more: (rows.append(len(x)), decode(self, x, *more))[1]
    )
    steered(model, {"autoguidance": {"model": "itself"}}, sources=Others(itself=model), **GREEDY)
    assert rows == [2] * 8


def test_sure_tokens_are_forgotten_in_proportion() -> None:
    chances_1lV = torch.tensor([[[0.9, 0.1], [0.5, 0.5]]])
    assert Certainty(bound=0).factors(chances_1lV.log()).tolist() == [pytest.approx([0.1, 0.5])]
    assert Certainty(strength=0.5, bound=0).factors(chances_1lV.log()).tolist() == [pytest.approx([0.55, 0.75])]
    assert Certainty(bound=0.7).factors(chances_1lV.log()).tolist() == [pytest.approx([0.55, 0.75])]
    assert Certainty(bound=2).factors(chances_1lV.log()).tolist() == [pytest.approx([0.1, 0.5])]


def test_certainty_changes_what_comes_after_the_first_scale(model: VARGPT) -> None:
    found, without = steered(model, {"certainty": {}}, **GREEDY).drawing, plain(model, **GREEDY)
    assert found.logits_BLV is not None and without.logits_BLV is not None
    assert torch.equal(found.logits_BLV[:, :1], without.logits_BLV[:, :1])
    assert not torch.allclose(found.logits_BLV[:, 1:5], without.logits_BLV[:, 1:5])


@pytest.mark.parametrize("corruption", ["zero", "mean"])
def test_prefix_guidance_adds_what_the_input_changes(model: VARGPT, corruption: str) -> None:
    """The first scale has no input; at the second the change grows with the weight; caches stay as they are."""
    one, two = (
        steered(model, {"prefix": {"weight": weight, "corruption": corruption}}, **GREEDY).drawing.logits_BLV
        for weight in (0.001, 0.002)
    )
    without = plain(model, **GREEDY)
    assert one is not None and two is not None and without.logits_BLV is not None
    assert torch.equal(one[:, :1], without.logits_BLV[:, :1])
    change = (one - without.logits_BLV)[:, 1:5]
    close((two - without.logits_BLV)[:, 1:5], 2 * change)
    assert change.abs().max() > 1e-4
    assert (one - without.logits_BLV).abs().max() < 0.1, "what was tried is not what later scales see"


def test_cosines_are_orthonormal() -> None:
    waves = cosines(5)
    torch.testing.assert_close(waves @ waves.T, torch.eye(5, dtype=torch.float64))


def test_an_enlarged_map_keeps_low_frequencies() -> None:
    flat_1lV = torch.full((1, 4, 1), 3.0)
    torch.testing.assert_close(enlarged(flat_1lV, (2, 2), (3, 4)), torch.full((1, 12, 1), 3.0))
    side = torch.arange(4) + 0.5
    wave = torch.cos(math.pi * side / 4)
    finer = torch.cos(math.pi * (torch.arange(8) + 0.5) / 8)
    map_1lV = wave.expand(4, 4).reshape(1, 16, 1)
    torch.testing.assert_close(
        enlarged(map_1lV, (4, 4), (8, 8)), finer.expand(8, 8).reshape(1, 64, 1), rtol=0, atol=0.02
    )


def test_spatial_guidance_adds_what_the_last_scale_does_not_have(model: VARGPT) -> None:
    found, without = steered(model, {"spatial": {"beta": 0.5}}, **GREEDY).drawing, plain(model, **GREEDY)
    assert found.logits_BLV is not None and without.logits_BLV is not None
    first, second = without.logits_BLV[:, :1], without.logits_BLV[:, 1:5]
    close(found.logits_BLV[:, 1:5], second + 0.5 * (second - first))
