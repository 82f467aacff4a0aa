"""What is traced without data is what a whole and a real step takes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.planning.measuring import LOW_BITS, ROWS, measure_aside, model_config, stage_of
from vargpt_lightning.models.core import head_loss
from vargpt_lightning.models.core.config import full_size
from vargpt_lightning.models.core.vision_config import VisionConfig
from vargpt_lightning.planning.steps import build_empty, trace_step
from vargpt_lightning.planning.trace import Trace
from vargpt_lightning.planning.truncated_model import StageTraces, shallow_depth
from vargpt_lightning.recipe.sharding import ShardingConfig

SMALL = {"width": 64, "vocabulary": 100, "channels": 8, "scales": (1, 2, 3)}


def whole(name: str, mode: str, count: int, layers: int = 4, depth: int = 4) -> Trace:
    model = build_empty(model_config(layers=layers, depth=depth, **SMALL))
    return trace_step(model, stage_of(name), ROWS[name], count, ShardingConfig(checkpointing=mode), "cpu")


@pytest.mark.parametrize(("name", "mode"), [("generation", "none"), ("understanding", "full"), ("pretrain", "every_2")])
def test_a_deep_trace_from_a_shallow_one_is_the_deep_one(name: str, mode: str) -> None:
    """Every row, every boundary, every gradient: 6 and 5 blocks, and a batch that was never traced."""
    deep = whole(name, mode, 5, layers=6, depth=5)
    traces = StageTraces(model_config(layers=6, depth=5, **SMALL), stage_of(name), torch.float32, target="cpu")
    made = traces.at(ROWS[name], 5, ShardingConfig(checkpointing=mode))
    # the optimizer's phase has one operation for each parameter, and is short
    rows = slice(0, next(mark.row for mark in deep.marks if mark.name == "optimizer"))
    assert made.operations[rows] == deep.operations[rows]
    assert [mark for mark in made.marks if mark.row <= rows.stop] == [mark for mark in deep.marks]
    assert made.flops == deep.flops and made.model_flops == deep.model_flops
    # gradients and states that stand at the beginning are laid over the trace
    alive = [each.changes_RK[rows, :3].sum(1).cumsum() for each in (made, deep)]
    assert alive[0].max() == alive[1].max()
    assert np.abs(alive[0] - alive[1]).max() < 0.005 * alive[1].max()
    assert {name for _, name in made.gradients} == {name for _, name in deep.gradients}


@pytest.mark.parametrize("count", [3, 4, 24])
def test_batches_whose_head_works_in_chunks_are_told_from_such(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three rows are the last whose logits are computed at once."""
    monkeypatch.setattr(head_loss, "LOGITS", 3 * ROWS["understanding"].trained * SMALL["vocabulary"])
    wanted = whole("understanding", "none", count)
    traces = StageTraces(model_config(**SMALL), stage_of("understanding"), torch.float32, target="cpu")
    found = traces.at(ROWS["understanding"], count, ShardingConfig())
    assert found.operations.count("logsumexp") == (0 if count == 3 else head_loss.CHUNKS)
    # the optimizer's phase has operations for each parameter of the few blocks that were traced
    rows = slice(0, next(mark.row for mark in wanted.marks if mark.name == "optimizer"))
    assert found.operations[rows] == wanted.operations[rows] and found.model_flops == wanted.model_flops
    alive = [int(each.changes_RK[rows, :3].sum(1).cumsum().max()) for each in (found, wanted)]
    assert alive[0] == (pytest.approx(alive[1], rel=0.01) if count == 4 else alive[1])


def test_checkpointing_repeats_work_and_saves_memory() -> None:
    none, full = whole("generation", "none", 2), whole("generation", "full", 2)
    assert full.model_flops == none.model_flops == none.flops
    assert full.flops > 1.2 * none.flops
    assert full.peak < 0.8 * none.peak


def test_shallow_depths_leave_a_multiple_of_the_period() -> None:
    for depth in range(3, 40):
        for period in (1, 2, 3, 4):
            few = shallow_depth(depth, period)
            assert few == depth or (few >= period + 3 and (depth - few) % period == 0)


@pytest.mark.parametrize(
    ("name", "mode", "more"),
    [("generation", "selective", {}), ("understanding", "none", {}), ("understanding", "full", LOW_BITS)],
)
def test_the_predicted_peak_is_what_torchs_profiler_measures(name: str, mode: str, more: Any) -> None:
    config, sharding, stage = model_config(width=128), ShardingConfig(checkpointing=mode), stage_of(name, **more)
    model = build_empty(config)
    predicted = trace_step(model, stage, ROWS[name], 2, sharding, "cpu")
    standing = sum(each.untyped_storage().nbytes() for each in [*model.parameters(), *model.buffers()])
    measured = measure_aside(config, stage, ROWS[name], 2, sharding)
    assert standing + predicted.peak == pytest.approx(measured.peak, rel=0.05)
    assert predicted.flops == pytest.approx(measured.flops, rel=0.01)
    assert (predicted.model_flops < predicted.flops) == (mode != "none"), "what is computed again is told apart"


def test_the_full_models_parameters_are_the_known_ones() -> None:
    model = build_empty(full_size("official"))
    counts = {name: sum(each.numel() for each in part.parameters()) for name, part in model.named_children()}
    assert sum(counts.values()) == 9_278_137_863
    assert counts["image_tokenizer"] == 108_948_355
    assert counts["vision_tower"] == 303_507_456


@pytest.mark.parametrize("family", ["phi", "gemma3_text"])  # biases and another order; several kinds of layers
def test_other_families_are_planned_from_a_few_blocks_too(family: str) -> None:
    config = model_config(layers=8, **SMALL)
    config = replace(config, language=replace(config.language, family=family))
    stage, row, sharding = stage_of("understanding"), ROWS["understanding"], ShardingConfig()
    deep = trace_step(build_empty(config), stage, row, 3, sharding, "cpu")
    made = StageTraces(config, stage, torch.float32, target="cpu").at(row, 3, sharding)
    rows = next(mark.row for mark in deep.marks if mark.name == "optimizer")
    alive = [each.changes_RK[:rows, :3].sum(1).cumsum().max() for each in (made, deep)]
    assert alive[0] == pytest.approx(alive[1], rel=0.01) and made.flops == deep.flops


@pytest.mark.parametrize("kind", ["siglip", "siglip2_naflex", "dinov2", "dinov3", "qwen2_vl"])
def test_other_towers_are_planned_from_a_few_blocks_too(kind: str) -> None:
    config = model_config(**SMALL)
    sizes: dict[str, Any] = {"width": 32, "heads": 4, "mlp": 64, "layers": 8, "feature_layer": -5}
    config = replace(config, vision=VisionConfig(kind=kind, picture_size=112, max_tokens=64, **sizes))
    stage, row, sharding = stage_of("understanding"), ROWS["understanding"], ShardingConfig()
    deep = trace_step(build_empty(config), stage, row, 3, sharding, "cpu")
    made = StageTraces(config, stage, torch.float32, target="cpu").at(row, 3, sharding)
    rows = next(mark.row for mark in deep.marks if mark.name == "optimizer")
    alive = [each.changes_RK[:rows, :3].sum(1).cumsum().max() for each in (made, deep)]
    assert alive[0] == alive[1] and made.flops == deep.flops


@pytest.mark.parametrize(("head", "base"), [("dpo", "generation"), ("cca", "generation"), ("dpo", "understanding")])
def test_heads_that_compare_answers_pass_two_rows_for_each_sample(head: str, base: str) -> None:
    plain, stage = stage_of(base), replace(stage_of(base), head=head, label_smoothing=0.0)
    model = build_empty(model_config(layers=2, depth=2, **SMALL))
    found = trace_step(model, stage, ROWS[base], 3, ShardingConfig(), "cpu")
    wanted = trace_step(
        build_empty(model_config(layers=2, depth=2, **SMALL)), plain, ROWS[base], 6, ShardingConfig(), "cpu"
    )
    assert found.model_flops == pytest.approx(wanted.model_flops, rel=0.1)
    assert {name for _, name in found.gradients} == {name for _, name in wanted.gradients}
