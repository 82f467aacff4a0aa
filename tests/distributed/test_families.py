"""Every family of language models, sharded over two processes, computes what one process does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from tests.models.cases import DRAWN, IDS, make_batch, random_codes
from tests.models.language.test_families import whole_model
from tests.ranks import run_ranks, said
from vargpt_lightning.distributed.fsdp2 import arrange_blocks, shard
from vargpt_lightning.models.core.families import FAMILIES
from vargpt_lightning.recipe.sharding import ShardingConfig


def batch() -> dict[str, Tensor]:
    return {**make_batch([[IDS.bos, 5, 6, 7, *DRAWN, 10, IDS.eos]]), "drawn_indices": random_codes(1)}


def gradients(model: Any) -> dict[str, Tensor]:
    """Of all weights of the language model, whole."""
    model(batch()).loss.backward()
    found = {name: each.grad for name, each in model.language_model.named_parameters()}
    return {name: each.full_tensor() if hasattr(each, "full_tensor") else each for name, each in found.items()}


def two_processes() -> int:
    """One of two that hold half of each weight; its number of families that differ."""
    dist.init_process_group("gloo")
    wrong = 0
    for family in FAMILIES:
        model = whole_model(family)
        expected = gradients(model)
        assert max(float(each.abs().max()) for each in expected.values()) > 1e-2
        model.zero_grad()
        arrange_blocks(model, ShardingConfig(checkpointing="full"))
        shard(model, init_device_mesh("cpu", (2,)), ShardingConfig())
        for name, found in gradients(model).items():
            if (found - expected[name]).abs().max() > 1e-5 * expected[name].abs().max() + 1e-6:
                print(family, name, float((found - expected[name]).abs().max()), flush=True)
                wrong += 1
                break
    dist.destroy_process_group()
    return wrong


def test_two_processes_have_the_gradients_of_one(tmp_path: Path) -> None:
    assert run_ranks(2, tmp_path / "log", two_processes) == [0, 0], said(tmp_path / "log", 2)
