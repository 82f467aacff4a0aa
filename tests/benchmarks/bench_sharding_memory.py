"""Peak memory of a process that trains a model of 200 M parameters, alone and sharded (fsdp2).

    MALLOC_MMAP_THRESHOLD_=1000000 MALLOC_ARENA_MAX=1 python -m tests.benchmarks.bench_sharding_memory [PROCESSES ...]

For each number of processes (1 and 2 by default; 0 is one process without sharding) two rows, with fresh weights and
with those of a file: the largest resident size of a process until the model has its weights, and afterwards in three
steps of AdamW in fp32 on 2 x 64 text tokens a process. From both, what the process had before (the imported packages)
is taken off. Linux alone; gloo on the CPU. The two variables make the C library give freed memory back at once, so that
what is measured is what is in use.
"""

from __future__ import annotations

import itertools
import os
import socket
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from vargpt_lightning.checkpoints.deferred import DeferredWeights
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.checkpoints.stage_weights import load_weights, stage_weights
from vargpt_lightning.distributed.fsdp2 import shard
from vargpt_lightning.models.core.config import (
    DecoderConfig,
    LanguageConfig,
    TokenIds,
    TokenizerConfig,
    VARGPTConfig,
    VisionConfig,
)
from vargpt_lightning.recipe.sharding import ShardingConfig

STEPS = 3


def config() -> VARGPTConfig:
    return VARGPTConfig(
        language=LanguageConfig(width=1024, layers=14, heads=16, vocabulary=4096, max_positions=256),
        vision=VisionConfig(kind="none"),
        tokenizer=TokenizerConfig(scales=(1, 2), channels=32, channel_multipliers=(1, 1), code_size=8, vocabulary=64),
        decoder=DecoderConfig(depth=2, width=512, heads=8, classes=1),
        tokens=TokenIds(pad=0, bos=1, eos=2, image=3, image_gen_start=4, image_gen_end=5, image_gen=6),
    )


def peak() -> float:
    """The largest resident size since the last `reset`, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def reset() -> float:
    """Forget the peak; return the present size in MB."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def build(world: int, file: Path | None) -> VARGPT:
    """Return the model with its weights, as a stage begins with it."""
    if not world:
        torch.manual_seed(0)
        model = VARGPT(config())
        if file is not None:
            load_weights(model, file)
        return model
    weights = DeferredWeights(config(), 0)
    if file is not None:
        weights.take(stage_weights(weights.model, file))
    weights.fill_parts("vision_tower", "image_tokenizer")
    weights.model.image_tokenizer.requires_grad_(False)
    shard(weights.model, init_device_mesh("cpu", (world,)), ShardingConfig())
    weights.fill(torch.device("cpu"))
    return weights.model


def take_steps(model: VARGPT, seed: int) -> None:
    """Train what is not frozen for some steps of AdamW on text alone."""
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=1e-4)
    ids = torch.randint(10, 4000, (2, 64), generator=torch.Generator().manual_seed(seed))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids).bool(), "labels": ids}
    for _ in range(STEPS):
        loss = model(batch).text_loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def train(rank: int, world: int, port: int, file: Path | None) -> tuple[int, float, float]:
    """Return parameters, the peak of building and that of training."""
    torch.set_num_threads(1)
    if world:
        dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    before = reset()
    model = build(world, file)
    built = peak() - before
    count = sum(parameter.numel() for parameter in model.parameters())
    model.image_tokenizer.requires_grad_(False)
    reset()
    take_steps(model, rank)
    return count, built, peak() - before


def main(worlds: list[int]) -> None:
    print("processes  weights  parameters  MB while built  MB in training  seconds", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        stored = Path(folder) / "model.safetensors"
        if os.fork() == 0:
            VARGPT(config()).save_pretrained(folder)
            os._exit(0)
        os.wait()
        for world, file in itertools.product(worlds, (None, stored)):
            measure(world, file)


def measure(world: int, file: Path | None) -> None:
    """Print a row."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    began, children = time.monotonic(), []
    for rank in range(max(world, 1)):
        child = os.fork()
        if child == 0:
            count, built, trained = train(rank, world, port, file)
            if rank == 0:
                name = "unsharded" if world == 0 else world
                seconds = time.monotonic() - began
                kind = "fresh" if file is None else "a file's"
                sizes = f"{count:>10,}  {built:>14.0f}  {trained:>14.0f}  {seconds:>7.0f}"
                print(f"{name:>9}  {kind:>7}  {sizes}", flush=True)
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [0, 1, 2])
