"""What real steps take: torch's memory profiler and flop counter around Lightning's own loop, on the CPU."""

from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import lightning.pytorch as pl
import numpy as np
import torch
from rich.console import Console
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from tests.forks import forks
from vargpt_lightning.callbacks.stage_scheduler import StageScheduler
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.distributed.fsdp2 import arrange_blocks
from vargpt_lightning.models.core.config import (
    DecoderConfig,
    LanguageConfig,
    TokenIds,
    TokenizerConfig,
    VARGPTConfig,
    VisionConfig,
)
from vargpt_lightning.modules.objectives import objective
from vargpt_lightning.modules.trainable import prepare_model
from vargpt_lightning.planning.steps import RowShape, batch_of
from vargpt_lightning.recipe.sharding import ShardingConfig
from vargpt_lightning.recipe.stage import LoraSettings, OptimizerConfig, Stage

T = TypeVar("T")


def _forward(q: Any, k: Any, v: Any, *args: Any, **kwargs: Any) -> int:
    return sdpa_flop_count(q, k, v)


def _backward(gradient: Any, q: Any, k: Any, v: Any, *args: Any, **kwargs: Any) -> int:
    return sdpa_backward_flop_count(gradient, q, k, v)


CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _forward,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _backward,
}
"""torch's flop counter does not know the CPU's attention, and has formulas for the same on GPUs."""
TRAINING = "training"


@dataclass
class Measured:
    """Bytes and floating-point operations of a real step."""

    peak: int
    flops: int


class _Counted(pl.Callback):
    """Count the operations of the first batch; apart from what is profiled, for a counter keeps tensors alive."""

    def __init__(self) -> None:
        self.counter = FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION)

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            self.counter.__enter__()

    def on_train_batch_end(self, *args: Any) -> None:
        if args[-1] == 0:
            self.counter.__exit__(None, None, None)


class _Batches(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
    def __init__(self, batch: dict[str, Any], count: int) -> None:
        self.batch, self.count = batch, count

    def __iter__(self) -> Any:
        return iter([self.batch] * self.count)


def aside(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function in a process that has not trained: a fork of one that has could not."""
    with ProcessPoolExecutor(1, mp_context=forks()) as pool:
        return pool.submit(function, *arguments).result()


def measure_aside(config: VARGPTConfig, stage: Stage, row: RowShape, count: int, sharding: ShardingConfig) -> Measured:
    """Measure in a process of its own: the profiler takes what others leave behind, or free, for the model's."""
    return aside(measure, config, stage, row, count, sharding)


def measure(config: VARGPTConfig, stage: Stage, row: RowShape, count: int, sharding: ShardingConfig) -> Measured:
    """Train three steps of a stage with Lightning on the CPU, and return what the largest took."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        # made inside: the profiler knows of no tensor that was there before
        model = VARGPT(config)
        prepare_model(model, stage)
        batch = batch_of(row, count, config, torch.float32, "cpu")
        with record_function(TRAINING):  # before it, weights in few bits were whole
            _fit(model, stage, batch, sharding, 3)
    counted = _Counted()
    _fit(model, stage, batch, sharding, 1, counted)
    return Measured(_peak(profiler), counted.counter.get_total_flops())


def _fit(
    model: VARGPT, stage: Stage, batch: dict[str, Any], sharding: ShardingConfig, steps: int, *more: pl.Callback
) -> None:
    arrange_blocks(model, sharding)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=steps,
        accumulate_grad_batches=stage.accumulate,
        gradient_clip_val=stage.optimizer.clip or None,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[StageScheduler([stage], stage.name, Console(file=io.StringIO())), *more],
    )
    batches = _Batches(batch, steps * stage.accumulate)
    trainer.fit(objective(stage.head)(model, stage, steps), torch.utils.data.DataLoader(batches, None))


def _peak(profiler: Any) -> int:
    """The most bytes at once; steps after the first, with gradients and states, hold more than anything before."""
    events = profiler.profiler.kineto_results.events()
    begun = min(each.start_ns() for each in events if each.name() == TRAINING)
    found = sorted((each.start_ns(), each.nbytes()) for each in events if each.name() == "[memory]")
    held = np.cumsum([size for _, size in found])
    return int(held[[when > begun for when, _ in found]].max())


def model_config(width: int = 128, layers: int = 4, depth: int = 4, **more: Any) -> VARGPTConfig:
    """A model with all parts of the full one; `width` is the language model's and the decoder's."""
    scales = more.get("scales", (1, 2, 3, 4, 5, 6))
    return VARGPTConfig(
        language=LanguageConfig(
            width=width, layers=layers, heads=4, vocabulary=more.get("vocabulary", 1000), max_positions=1024
        ),
        vision=VisionConfig(
            kind="clip", picture_size=112, patch_size=14, width=width // 2, layers=3, heads=4, mlp=width * 2
        ),
        tokenizer=TokenizerConfig(
            scales=scales, channels=more.get("channels", 32), channel_multipliers=(1, 1, 2), vocabulary=256
        ),
        decoder=DecoderConfig(depth=depth, width=width, heads=4, classes=10),
        tokens=TokenIds(pad=0, bos=1, eos=2, image=3, image_gen_start=4, image_gen_end=5, image_gen=6),
    )


ROWS = {
    "pretrain": RowShape(40, 20, 0, 1),
    "understanding": RowShape(80, 60, 1, 0),
    "generation": RowShape(40, 20, 0, 1),
}
TRAINED = {
    "pretrain": ["generation_projectors"],
    "understanding": ["language_model", "vision_projector"],
    "generation": ["visual_decoder", "generation_projectors"],
    "tokenizer": ["image_tokenizer"],
}


LOW_BITS = {"lora": LoraSettings(rank=8, alpha=16), "frozen_bits": {"language_model": 4, "visual_decoder": 8}}
"""Of the understanding stage: adapters, beside frozen weights in few bits."""


def stage_of(name: str, optimizer: str = "adamw", **more: Any) -> Stage:
    """One of the paper's stages."""
    config = OptimizerConfig(name=optimizer)  # type: ignore[arg-type]
    return Stage(name=name, train=TRAINED[name], data={"any": 1}, steps=2, optimizer=config, **more)
