"""How parts are found, named and refused."""

from __future__ import annotations

from typing import Any

import pytest

from tests.models.parts.drawing import tiny
from vargpt_lightning.models.decoder.sampling import SamplingSettings
from vargpt_lightning.models.parts import checked, made_of, part_lines, part_of, parts_of
from vargpt_lightning.utils.errors import UserError

WRONG: list[tuple[Any, str]] = [
    ({"guided_scale": {}}, r"part of a sampler: 'guided_scale'; there are .*did you mean 'guided_scales'\?"),
    ({"guided_scales": {"stp": 2}}, r"parts.guided_scales.stp is no argument; there are start, stop; .*'stop'"),
    ({"guided_scales": {"stop": "late"}}, r"parts.guided_scales.stop='late'; expected a whole number"),
    ({"guided_scales": 3}, r"parts.guided_scales: got 3, expected its arguments"),
    ({"weights": {}}, r"parts.weights: expected values too"),
    ({"weights": {"values": [1, -1]}}, r"parts.weights.values=\[1, -1\]; expected a list"),
    ({"schedule": {"shape": "sine"}}, r"parts.schedule.shape='sine'; expected one of linear, constant, cosine"),
    ({"schedule": {}, "weights": {"values": [1]}}, r"got schedule and weights, expected one of them"),
    ({"negative": {}, "autoguidance": {"model": "x"}}, r"got negative and autoguidance, expected one of them"),
    (["schedule"], r"parts: got \['schedule'\], expected names of parts"),
]
UNFIT: list[tuple[dict[str, Any], str]] = [
    ({"weights": {"values": [1, 2]}}, r"weights.values: got 2 values, expected one for each of the 4 scales"),
    ({"guided_scales": {"stop": 5}}, r"got start=0 and stop=5, expected 0 <= start <= stop <= 4"),
    ({"guided_scales": {"start": 3, "stop": 1}}, r"got start=3 and stop=1, expected 0 <= start"),
]


@pytest.mark.parametrize(("given", "told"), WRONG, ids=[told for _, told in WRONG])
def test_settings_refuse_what_is_wrong(given: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        SamplingSettings(parts=given)


@pytest.mark.parametrize(("given", "told"), UNFIT, ids=[told for _, told in UNFIT])
def test_a_model_refuses_what_does_not_fit_it(given: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        tiny().sampling_settings(parts=given)


def test_hooks_are_called_in_the_order_of_the_parts_own() -> None:
    names = [part.name for part in made_of({"spatial": {}, "prefix": {}, "guided_scales": {}, "schedule": {}})]
    assert names == ["schedule", "guided_scales", "prefix", "spatial"]
    assert checked({"spatial": None}) == {"spatial": {}}


def test_parts_are_read_from_words() -> None:
    assert part_of("weights values=[0,1,2.5]") == ("weights", {"values": [0, 1, 2.5]})
    assert parts_of(["weights values=[1,1e-3]"]) == {"weights": {"values": [1, 0.001]}}
    assert parts_of(["schedule shape=cosine", "guided_scales stop=3 start=1"]) == {
        "schedule": {"shape": "cosine"},
        "guided_scales": {"stop": 3, "start": 1},
    }
    assert parts_of([""]) == {}
    spoken = {"negative": {"prompt": "Please draw nothing."}, "weights": {"values": [1, 0.5]}, "int8": {}}
    assert parts_of(part_lines(spoken).splitlines()) == spoken
    assert part_lines(spoken).splitlines()[1:] == ["weights values=[1,0.5]", "int8"]
    with pytest.raises(UserError, match=r"No closing quotation.*expected quotes in pairs"):
        parts_of(['negative prompt="no end'])
    with pytest.raises(UserError, match=r"guided_scales: got '3', expected KEY=VALUE"):
        parts_of(["guided_scales 3"])
    with pytest.raises(UserError, match=r"schedule: got it twice"):
        parts_of(["schedule", "schedule shape=linear"])


def test_records_of_before_are_known_again() -> None:
    assert "parts" not in SamplingSettings().recorded()
    parts = {"guided_scales": {"stop": 3}}
    assert SamplingSettings(parts=parts).recorded()["parts"] == parts
