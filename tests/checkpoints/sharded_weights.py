"""One of two processes that load stored weights into a sharded model and save it again; see test_copy.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from tests.models.cases import small_model
from vargpt_lightning.checkpoints.copy import load_tensor, place
from vargpt_lightning.checkpoints.deferred import DeferredWeights
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.checkpoints.init_from import InitFrom, initialise
from vargpt_lightning.checkpoints.lazy_tensors import FileTensor, MemoryTensor
from vargpt_lightning.checkpoints.open import open_checkpoint
from vargpt_lightning.distributed.tensors import whole
from vargpt_lightning.models.language.lora import attach_adapters


class Counted:
    """A stored tensor that counts the numbers which are asked of it."""

    read = 0

    def __init__(self, stored: FileTensor | MemoryTensor) -> None:
        self.stored, self.shape, self.dtype = stored, stored.shape, stored.dtype

    def part(self, *where: slice) -> torch.Tensor:
        found = self.stored.part(*where)
        Counted.read += found.numel()
        return found


def shard(model: VARGPT, mesh: Any) -> VARGPT:
    for block in [*model.language_model.model.layers, *model.visual_decoder.blocks, model.vision_tower]:
        fully_shard(block, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def empty_model(folder: Path, mesh: Any) -> VARGPT:
    with torch.device("meta"):
        model = VARGPT(open_checkpoint(folder / "ours").config)
    return shard(model, mesh).to_empty(device="cpu")


def attach(model: VARGPT) -> None:
    attach_adapters(model.language_model, 2, 4)


def begins_as_one_made_whole(folder: Path, mesh: Any) -> bool:
    """Hold a model that is made without memory against one process's: stored, drawn and tied weights, and adapters."""
    config = small_model(5).config
    config.language.tie_embeddings = True
    state = open_checkpoint(folder / "ours").state
    given = {key: stored for key, stored in state.items() if key.startswith(("visual_decoder.", "vision_tower."))}
    torch.manual_seed(7)
    expected = VARGPT(config)
    expected.load_state_dict({key: stored.part() for key, stored in given.items()}, strict=False)
    torch.manual_seed(8)
    attach(expected)
    before = torch.get_rng_state()
    weights = DeferredWeights(config, 7)
    weights.take(given)
    weights.fill_parts("vision_tower", "image_tokenizer")
    weights.change(attach, 8)
    model = shard(weights.model, mesh)
    weights.fill(torch.device("cpu"))
    assert torch.equal(before, torch.get_rng_state())
    found = {key: whole(value) for key, value in [*model.state_dict().items(), *model.named_buffers()]}
    wanted = dict([*expected.state_dict().items(), *expected.named_buffers()])
    assert found.keys() == wanted.keys() and any(".lora_A." in key for key in found)
    assert model.language_model.lm_head.weight is model.language_model.model.embed_tokens.weight
    return all(torch.equal(value, wanted[key]) for key, value in found.items())


def work(folder: Path) -> None:
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (2,))
    model = empty_model(folder, mesh)
    state = {key: Counted(stored) for key, stored in open_checkpoint(folder / "ours").state.items()}
    place(model, state)
    own = sum(
        value.to_local().numel() if isinstance(value, DTensor) else value.numel()
        for value in model.state_dict().values()
    )
    found = {"read": Counted.read, "own": own, "all": sum(value.numel() for value in model.state_dict().values())}
    expected = small_model(5).state_dict()
    found["equal"] = all(torch.equal(whole(value), expected[key]) for key, value in model.state_dict().items())
    model.save_pretrained(folder / "saved")
    # by columns, and by an uneven number of rows
    table = torch.arange(15.0).view(5, 3)
    from torch.distributed.tensor import Shard, distribute_tensor

    for dim in (0, 1):
        target = distribute_tensor(torch.zeros(5, 3), mesh, [Shard(dim)])
        load_tensor(target, MemoryTensor(table))
        found[f"dim{dim}"] = torch.equal(target.full_tensor(), table)
    grown = empty_model(folder, mesh)
    initialise(grown, InitFrom(model=str(folder / "ours"), language_model=str(folder / "llava.safetensors")))
    rows = grown.state_dict()["language_model.model.embed_tokens.weight"].full_tensor()
    torch.save(rows, folder / f"rows-{dist.get_rank()}.pt")
    found["begins"] = begins_as_one_made_whole(folder, mesh)
    (folder / f"found-{dist.get_rank()}.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()
