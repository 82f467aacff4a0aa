"""Peak memory of a process that trains adapters of a model of 200 M parameters, its frozen weights in 32, 8 and 4 bits.

    MALLOC_MMAP_THRESHOLD_=1000000 MALLOC_ARENA_MAX=1 python -m tests.benchmarks.bench_low_bits [BITS ...]

For each of 32 (as they are), 8 and 4 bits a row: the resident size of a process when the model is ready, and the
largest in three steps of AdamW in fp32 on 2 x 64 text tokens, the adapters of rank 8; from both, what the process had
before (the imported packages) is taken off. See `bench_sharding_memory` for the two variables.
"""

from __future__ import annotations

import gc
import os
import sys
import time

import torch
from torch import nn

from tests.benchmarks.bench_sharding_memory import STEPS, config, peak, reset, take_steps
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.models.language.lora import attach_adapters
from vargpt_lightning.models.language.quantization import LowBitLinear
from vargpt_lightning.modules.trainable import prepare_model
from vargpt_lightning.recipe.stage import LoraSettings, Stage


def train(bits: int) -> tuple[int, float, float, float]:
    """Return trained parameters, MB of the ready model, MB at most in training, and seconds of packing."""
    torch.set_num_threads(1)
    attach_adapters(nn.ModuleDict({"q_proj": nn.Linear(64, 64)}), 1, 1.0)  # imports peft
    if bits != 32:
        LowBitLinear(nn.Linear(64, 64).requires_grad_(False), bits)(torch.zeros(1, 64))  # imports bitsandbytes
    before = reset()
    torch.manual_seed(0)
    model = VARGPT(config())
    began = time.monotonic()
    prepare_model(model, stage(bits))
    seconds = time.monotonic() - began
    gc.collect()
    ready = reset() - before
    trained = [each for each in model.parameters() if each.requires_grad]
    take_steps(model, 0)
    return sum(each.numel() for each in trained), ready, peak() - before, seconds


def stage(bits: int) -> Stage:
    few = {} if bits == 32 else {"language_model": bits, "visual_decoder": bits}
    return Stage("adapt", ["language_model"], {"any": 1}, steps=STEPS, lora=LoraSettings(rank=8), frozen_bits=few)


def main(choices: list[int]) -> None:
    print("bits  trained parameters  MB when ready  MB in training  seconds of packing", flush=True)
    for bits in choices:
        if os.fork() == 0:
            trained, ready, most, seconds = train(bits)
            print(f"{bits:>4}  {trained:>18,}  {ready:>13.0f}  {most:>14.0f}  {seconds:>18.0f}", flush=True)
            os._exit(0)
        os.wait()


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [32, 8, 4])
