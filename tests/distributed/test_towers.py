"""Every vision transformer as a tower: two processes compute what one does, and one is trained whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from tests.models.cases import IDS, make_batch
from tests.models.vision.test_towers import around, seen
from tests.ranks import run_ranks, said
from tests.tiny import tiny_tree, write_experiment
from vargpt_lightning.cli import main
from vargpt_lightning.distributed.fsdp2 import arrange_blocks, shard
from vargpt_lightning.models.core.vision_config import VisionConfig
from vargpt_lightning.recipe.sharding import ShardingConfig
from vargpt_lightning.runs.folder import RunFolder

SIZES: dict[str, Any] = {"picture_size": 16, "patch_size": 8, "width": 16, "layers": 2, "heads": 2, "mlp": 32}
TOWERS = ("siglip", "siglip2_naflex", "dinov2", "dinov3", "qwen2_vl")


def gradients(model: Any, config: VisionConfig) -> dict[str, Tensor]:
    """Of all weights of the tower and its projector, whole."""
    ids = [IDS.bos, *[IDS.image] * config.patches, 5, 6, IDS.eos]
    batch = make_batch([ids], prompt_length=config.patches + 2)
    model({**batch, "pixel_values": seen(config)[:1]}).loss.backward()
    named = [*model.vision_tower.named_parameters(), *model.vision_projector.named_parameters(prefix="projector")]
    found = {name: each.grad for name, each in named if each.grad is not None and each.numel()}
    return {name: each.full_tensor() if hasattr(each, "full_tensor") else each for name, each in found.items()}


def two_processes() -> int:
    """One of two that hold half of each weight; its number of towers that differ."""
    dist.init_process_group("gloo")
    wrong = 0
    for kind in TOWERS:
        config = VisionConfig(kind=kind, max_tokens=8, **SIZES)
        model = around(config)
        expected = gradients(model, config)
        assert len(expected) > 20 and any(bool((each.abs() > 1e-3).any()) for each in expected.values())
        model.zero_grad()
        arrange_blocks(model, ShardingConfig(checkpointing="full"))
        shard(model, init_device_mesh("cpu", (2,)), ShardingConfig())
        found = gradients(model, config)
        far = [name for name, each in expected.items() if not torch.allclose(found[name], each, rtol=1e-4, atol=1e-6)]
        print(kind, far, flush=True)
        wrong += bool(far)
    dist.destroy_process_group()
    return wrong


def test_two_processes_have_the_gradients_of_one(tmp_path: Path) -> None:
    assert run_ranks(2, tmp_path / "log", two_processes) == [0, 0], said(tmp_path / "log", 2)


def test_a_tower_is_trained_and_kept_in_few_bits(tiny_data: dict[str, Any], tmp_path: Path) -> None:
    """Qwen2-VL's, which differs most: pictures of their own shapes, and a merger as the projector."""
    tree = tiny_tree(tiny_data, tmp_path)
    tree["model"]["vision"] = {"kind": "qwen2_vl", "max_tokens": 8, **SIZES}
    trained, frozen = (tree["stages"][1] | {"name": name, "steps": 1} for name in ("trained", "frozen"))
    trained["train"] = [*trained["train"], "vision_tower"]
    tree["stages"] = [trained, frozen | {"frozen_bits": {"vision_tower": 8}}]
    assert main(["fit", "-c", str(write_experiment(tmp_path / "tiny.yaml", tree))]) == 0
    assert [stage.status for stage in RunFolder(tmp_path / "tiny").stages()] == ["finished"] * 2
