"""Every part at its neutral setting draws what is drawn without it, bit by bit, and says that it changes nothing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.models.cases import small_model
from tests.models.parts.drawing import Others, assert_same, plain, steered, tiny
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.models.parts import get, idle_parts, names

NEUTRAL: list[tuple[str, dict[str, Any]]] = [
    ("schedule", {"shape": "linear"}),
    ("weights", {"values": [0.0, 0.5, 1.0, 1.5]}),
    ("guided_scales", {}),
    ("guided_scales", {"start": 0, "stop": 4}),
    ("negative", {"prompt": " "}),
    ("certainty", {"strength": 0.0}),
    ("prefix", {"weight": 0.0}),
    ("spatial", {"beta": 0.0}),
    ("skip_scales", {"last": 0}),
    ("fastvar", {"ratios": [0, 0, 0, 0]}),
    ("fastvar", {"ratios": [0, 0, 0.5, 0.5], "first_layer": 2}),
    ("scalekv", {"capacity": 16}),
    ("scalekv", {"capacities": [16, 20]}),
    ("code", {"model": "other", "scales": 4}),
    ("int8", {"blocks": 0}),
    ("diversear", {"targets": []}),
    ("diversear", {"targets": [1.0, 1.0]}),
    ("best_of", {"scorer": "any", "candidates_each": 1}),
]
NOT_IDLE = {"weights", "autoguidance"}
"""Parts whose neutral setting is one of many values that change something, which only the drawing shows."""


@pytest.fixture(scope="module")
def model() -> VARGPT:
    return tiny()


@pytest.mark.parametrize(("name", "arguments"), NEUTRAL, ids=[f"{name}-{given}" for name, given in NEUTRAL])
@pytest.mark.parametrize("unconditional", ["dropped_prompt", "noise"])
def test_neutral_parts_change_no_bit(model: VARGPT, name: str, arguments: dict[str, Any], unconditional: Any) -> None:
    drawn_by = model if unconditional == "dropped_prompt" else small_model(unconditional=unconditional)
    assert_same(steered(drawn_by, {name: arguments}), plain(drawn_by))
    facts = drawn_by.facts(drawn_by.sampling_settings())
    assert (name in idle_parts({name: arguments}, facts)) == (name not in NOT_IDLE)


def test_all_neutral_parts_together_change_no_bit(model: VARGPT) -> None:
    left_out = ("weights", "code", "scalekv", "fastvar")  # they exclude others
    parts = {name: arguments for name, arguments in NEUTRAL if name not in left_out}
    assert_same(steered(model, parts), plain(model))


def test_the_model_itself_is_no_worse_version(model: VARGPT) -> None:
    """Guidance by the model itself leaves its own logits: (1 + t) c - t c."""
    with_itself = steered(model, {"autoguidance": {"model": "itself"}}, sources=Others(itself=model), greedy=True)
    without = plain(model, greedy=True, cfg=0.0)
    assert with_itself.drawing.idx_BL.equal(without.idx_BL)


@pytest.mark.parametrize("name", ["schedule", "weights", "guided_scales", "negative", "autoguidance", "certainty"])
def test_without_guidance_its_parts_change_nothing_and_say_so(model: VARGPT, name: str) -> None:
    arguments = {"weights": {"values": [1, 2, 3, 4]}, "negative": {"prompt": "x"}, "autoguidance": {"model": "none"}}
    parts = {name: arguments.get(name, {"stop": 2} if name == "guided_scales" else {})}
    assert_same(steered(model, parts, cfg=0.0), plain(model, cfg=0.0))
    assert "cfg is 0" in idle_parts(parts, model.facts(model.sampling_settings(cfg=0.0)))[name]


def test_every_part_is_tried_at_its_neutral_setting() -> None:
    assert {name for name, _ in NEUTRAL} | {"autoguidance"} == set(names())
    assert all(get(name).NAME == name == get(name).PART.name and get(name).TITLE for name in names())
