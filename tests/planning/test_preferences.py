"""Stages that compare log-probabilities are planned from two small batches as well as from their own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.models.cases import bit_tokenizer
from tests.models.v1_1 import small_v1_1
from tests.planning.measuring import TRAINED
from vargpt_lightning.models.core.config import LanguageConfig, VARGPTConfig
from vargpt_lightning.models.core.correction import SelfCorrection
from vargpt_lightning.planning.stage_plan import Choice, StagePlanner
from vargpt_lightning.planning.steps import RowShape, build_empty, trace_step
from vargpt_lightning.planning.truncated_model import StageTraces
from vargpt_lightning.recipe.grpo import GRPOSettings
from vargpt_lightning.recipe.plan import CorpusShape, PlanConfig
from vargpt_lightning.recipe.sharding import ShardingConfig
from vargpt_lightning.recipe.stage import Stage
from vargpt_lightning.utils.gpus import parse_cluster

EMBEDDINGS = {"cross_attention": "embeddings", "class_row": "null"}
WIDE = (1, 2, (3, 4), (4, 6))


def v1_1(depth: int = 4, **changes: Any) -> VARGPTConfig:
    """A small VARGPT-v1.1 whose towers are deep enough to be put together from fewer blocks."""
    language = LanguageConfig(
        family="qwen2_vl", width=32, layers=5, heads=4, kv_heads=2, mlp=64, vocabulary=112, max_positions=512
    )
    config = small_v1_1(language=language, **changes).config
    return replace(config, decoder=replace(config.decoder, depth=depth))


def stage_of(head: str, **changes: Any) -> Stage:
    grpo = GRPOSettings(reward="brightness", group=2, kl=0.1, scales=2) if head == "grpo" else None
    stage = Stage("learned", TRAINED["generation"], {"any": 1.0}, steps=2, head=head, grpo=grpo)
    return replace(stage, **changes)


@pytest.mark.parametrize(
    ("head", "reading", "changes"),
    [
        ("dpo", {}, {"self_correction": SelfCorrection()}),
        ("dpo", {"published": "official"}, {}),
        ("dpo", EMBEDDINGS, {}),
        ("cca", {}, {"self_correction": SelfCorrection()}),
        ("cca", EMBEDDINGS, {}),
        ("grpo", {}, {}),
        ("grpo", EMBEDDINGS | {"tokenizer": replace(bit_tokenizer(), sizes=(WIDE,))}, {}),
    ],
    ids=str,
)
def test_a_batch_that_was_not_traced_is_told_from_two(head: str, reading: Any, changes: Any) -> None:
    """Rows are looked at one by one to be known again: that is no operation of the device."""
    config, stage, row = v1_1(**reading), stage_of(head, **changes), RowShape(20, 10, drawn=1)
    sharding = ShardingConfig(checkpointing="full")
    whole = trace_step(build_empty(config), stage, row, 5, sharding, "cpu")
    made = StageTraces(config, stage, torch.float32, target="cpu").at(row, 5, sharding)
    # the optimizer's phase has operations for each parameter of the few blocks that were traced
    rows = next(mark.row for mark in whole.marks if mark.name == "optimizer")
    assert made.operations[:rows] == whole.operations[:rows]
    assert (made.flops, made.model_flops) == (whole.flops, whole.model_flops)
    alive = [each.changes_RK[:rows, :3].sum(1).cumsum().max() for each in (made, whole)]
    assert alive[0] == pytest.approx(alive[1], rel=0.01)


@pytest.mark.parametrize("head", ["dpo", "cca"])
def test_both_rows_of_a_comparison_count_as_tokens_of_a_step(head: str) -> None:
    settings = PlanConfig(corpora={"any": CorpusShape(samples=9, text=20, longest=20, drawn=1)})
    choice = Choice("single", ShardingConfig(), 3, 1)
    cluster = parse_cluster("1xH100")
    plain, compared = (
        StagePlanner(build_empty(v1_1()), stage_of(name), settings, cluster, "32-true").work(choice)
        for name in ("generation", head)
    )
    assert (compared.tokens, compared.image_tokens) == (2 * plain.tokens, 2 * plain.image_tokens)
    assert compared.samples == plain.samples == 3
