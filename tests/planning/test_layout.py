"""What a rank holds under each strategy."""

from __future__ import annotations

import pytest
import torch

from tests.planning.measuring import ROWS, model_config, stage_of
from vargpt_lightning.modules.trainable import freeze_all_but
from vargpt_lightning.planning.layout import Group, Layout, groups_of, lay_out
from vargpt_lightning.planning.steps import build_empty, named_blocks, trace_step
from vargpt_lightning.planning.trace import Trace
from vargpt_lightning.recipe.sharding import ShardingConfig

SMALL = {"width": 64, "vocabulary": 100, "channels": 8, "scales": (1, 2, 3)}


@pytest.fixture(scope="module")
def traced() -> tuple[Trace, list[Group], int]:
    """A generation step, the groups of its parameters, and the bytes of these."""
    model = build_empty(model_config(**SMALL))
    trace = trace_step(model, stage_of("generation"), ROWS["generation"], 2, ShardingConfig(), "cpu")
    freeze_all_but(model, stage_of("generation"))
    parameters = {name: (tuple(each.shape), each.requires_grad) for name, each in model.named_parameters()}
    groups = groups_of(parameters, list(named_blocks(model)))
    return trace, groups, 4 * sum(each.numel() for each in model.parameters())


def test_one_process_holds_what_the_trace_says(traced: tuple[Trace, list[Group], int]) -> None:
    trace, groups, size = traced
    assert lay_out(trace, groups, Layout()).peak == pytest.approx(size + trace.peak, rel=0.005)


def test_every_parameter_has_its_group(traced: tuple[Trace, list[Group], int]) -> None:
    _, groups, size = traced
    assert 4 * sum(group.count() for group in groups) == size
    names = [group.name for group in groups]
    assert "language_model.model.layers.3" in names and "visual_decoder.blocks.0" in names and "" in names
    assert not any("blocks." in each.name for group in groups if group.name == "" for each in group.parameters)


def test_shards_shrink_what_stands_and_gathering_costs(traced: tuple[Trace, list[Group], int]) -> None:
    trace, groups, _ = traced
    whole = lay_out(trace, groups, Layout())
    four = lay_out(trace, groups, Layout("fsdp2", shards=4))
    stands = [int(each.kinds[kind][0]) for each in (whole, four) for kind in ("parameters", "optimizer")]
    assert stands[2] == pytest.approx(stands[0] / 4, rel=0.05) and stands[3] == pytest.approx(stands[1] / 4, rel=0.05)
    assert four.kinds["gathered"].max() > 0 and not whole.kinds["gathered"].any()
    kept = lay_out(trace, groups, Layout("fsdp2", shards=4, reshard=False))
    assert kept.kinds["gathered"].max() > four.kinds["gathered"].max()


def test_accumulation_keeps_whole_gradients_unless_they_are_reduced_each_time(
    traced: tuple[Trace, list[Group], int],
) -> None:
    trace, groups, _ = traced
    trained = 4 * sum(group.count(trained=True) for group in groups)
    whole = lay_out(trace, groups, Layout("fsdp2", shards=4, accumulate=2, whole_gradients=True))
    reduced = lay_out(trace, groups, Layout("fsdp2", shards=4, accumulate=2))
    assert whole.kinds["gradients"].min() >= trained
    assert reduced.kinds["gradients"].max() < trained


def test_offload_moves_states_to_the_host(traced: tuple[Trace, list[Group], int]) -> None:
    trace, groups, _ = traced
    moved = lay_out(trace, groups, Layout("fsdp2", shards=2, offload=True))
    assert not moved.kinds["optimizer"].any() and not moved.kinds["parameters"].any()
    assert moved.host > 0


def test_ddp_holds_a_copy_of_the_gradients_in_its_buckets(traced: tuple[Trace, list[Group], int]) -> None:
    trace, groups, _ = traced
    trained = 4 * sum(group.count(trained=True) for group in groups)
    single, ddp = lay_out(trace, groups, Layout()), lay_out(trace, groups, Layout("ddp"))
    assert ddp.peak - single.peak == trained


def test_types_of_weights_are_told_apart() -> None:
    assert torch.bfloat16.itemsize == 2
    groups = groups_of({"a.0.weight": ((5, 3), True), "b": ((), False)}, ["a.0"])
    assert [(group.name, group.count(), group.part(2)) for group in groups] == [("a.0", 15, 9), ("", 1, 1)]
