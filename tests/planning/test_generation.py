"""Drawing planned: what two small batches say of another, and caches against real ones."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.planning.measuring import model_config
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.models.language.kv_cache import LanguageCache
from vargpt_lightning.models.parts import Given
from vargpt_lightning.planning.generation import plan_drawing, trace_drawing
from vargpt_lightning.planning.steps import RowShape, batch_of, build_empty
from vargpt_lightning.utils.gpus import catalogue

SMALL = {"width": 64, "vocabulary": 100, "channels": 8, "scales": (1, 2, 3)}


def test_other_batches_follow_from_two() -> None:
    model = build_empty(model_config(**SMALL)).eval()
    (plan,) = plan_drawing(model, [5], catalogue()["H100-80GB"], 0.5, prompt=8)
    trace, caches = trace_drawing(model, 5, prompt=8)
    assert (plan.flops, plan.caches) == (trace.flops, caches)
    assert plan.seconds == pytest.approx(2 * plan.at_least)


def test_caches_are_those_of_the_model() -> None:
    config = model_config(**SMALL)
    _, caches = trace_drawing(build_empty(config).eval(), 2, prompt=8)
    model = VARGPT(config)
    tokens = model.schedule.num_tokens
    real = 0
    for capacity in (8 + tokens + 2, tokens + 1):  # with the prompt, and for guidance without
        cache = LanguageCache(model.language_model, 2, capacity)
        real += 2 * cache.keys_LBHSD.nbytes
    real += sum(2 * each.keys_BHLD.nbytes for each in model.visual_decoder.new_cache(4).layers)
    assert caches == real


def test_nothing_is_kept_of_what_was_only_traced() -> None:
    model = build_empty(model_config(**SMALL)).eval()
    trace, _ = trace_drawing(model, 2, prompt=8)
    assert {mark.name for mark in trace.marks} >= {"prompt", "scales", "decoding"}
    assert all(parameter.grad is None and parameter.is_meta for parameter in model.parameters())
    assert torch.get_default_device() == torch.device("cpu")


@pytest.fixture(scope="module")
def plain() -> tuple[int, int]:
    """Operations and bytes of the caches of two pictures without parts of the sampler."""
    trace, caches = trace_drawing(build_empty(model_config(**SMALL)).eval(), 2, prompt=8)
    return trace.flops, caches


FACTORS: list[tuple[Given, float, float]] = [
    ({"guided_scales": {"stop": 1}}, 0.3, 0.9),
    ({"skip_scales": {"last": 1}}, 0.3, 0.9),
    ({"fastvar": {"ratios": [0, 0, 0.5]}}, 0.5, 0.999),
    ({"int8": {}}, 0.95, 1.05),
    ({"code": {"model": "other", "scales": 2}}, 1.05, 2.0),
    ({"best_of": {"scorer": "any", "candidates_each": 2}}, 1.3, 2.5),
]


@pytest.mark.parametrize(("parts", "low", "high"), FACTORS, ids=[next(iter(parts)) for parts, _, _ in FACTORS])
def test_parts_of_the_sampler_are_counted(parts: Given, low: float, high: float, plain: tuple[int, int]) -> None:
    trace, caches = trace_drawing(build_empty(model_config(**SMALL)).eval(), 2, prompt=8, parts=parts)
    assert low < trace.flops / plain[0] < high
    assert (caches == plain[1]) == (next(iter(parts)) in ("int8", "skip_scales"))


def test_a_model_of_several_sizes_is_planned_for_the_largest() -> None:
    largest = ((1, 2), 3, (4, 5))
    several, alone = (model_config(**SMALL | change) for change in ({}, {"scales": largest}))
    several = replace(several, tokenizer=replace(several.tokenizer, sizes=((1, 2, (2, 3)), largest)))
    trace, caches = trace_drawing(build_empty(several).eval(), 1, prompt=8)
    expected, theirs = trace_drawing(build_empty(alone).eval(), 1, prompt=8)
    assert caches == theirs and trace.peak == pytest.approx(expected.peak, rel=0.01)
    row = RowShape(text=8, trained=4, drawn=1)
    batch, other = (batch_of(row, 2, config, torch.float32) for config in (several, alone))
    assert batch["size"] == 2 and batch["drawn_pixels"].shape == other["drawn_pixels"].shape
    assert torch.equal(batch["input_ids"], other["input_ids"])
    assert row.length(several) == row.length(alone) == 8 + 2 + (2 + 9 + 20)
