"""Drawing planned: what two small batches say of another, and caches against real ones."""

from __future__ import annotations

import pytest
import torch

from tests.planning.measuring import model_config
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.models.language.kv_cache import LanguageCache
from vargpt_lightning.planning.generation import plan_drawing, trace_drawing
from vargpt_lightning.planning.steps import build_empty
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
