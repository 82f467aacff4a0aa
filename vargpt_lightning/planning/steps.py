"""A stage's training step, as Lightning takes it, on a model without data.

Legend: B rows, T tokens, P seen and Q drawn pictures of all rows, S side of a seen picture, H and W of a drawn one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.distributed.fsdp2 import arrange_blocks, blocks
from vargpt_lightning.models.core.config import VARGPTConfig
from vargpt_lightning.models.core.losses import IGNORED
from vargpt_lightning.modules.objectives import module_of
from vargpt_lightning.modules.optim.optimizers import build_optimizer
from vargpt_lightning.modules.preferences.base import PreferenceModule
from vargpt_lightning.modules.preferences.grpo import GRPOModule
from vargpt_lightning.modules.trainable import prepare_model
from vargpt_lightning.planning.kernels import Target
from vargpt_lightning.planning.trace import Trace
from vargpt_lightning.planning.tracing import StepTracer, tracing
from vargpt_lightning.recipe.heads import PAIRED
from vargpt_lightning.recipe.sharding import ShardingConfig
from vargpt_lightning.recipe.stage import Stage


@dataclass(frozen=True)
class RowShape:
    """What one sample is made of.

    Args:
        text: text tokens, special ones included, pictures' placeholders not.
        trained: how many of them are answers.
        seen, drawn: pictures.
    """

    text: int
    trained: int
    seen: int = 0
    drawn: int = 0

    def length(self, config: VARGPTConfig) -> int:
        """Tokens of the sequence, cut to the model's context."""
        visual = self.seen * config.vision.patches + self.drawn * (drawn_tokens(config) + 2)
        return min(self.text + visual, config.language.max_positions)


def batch_of(
    row: RowShape, count: int, config: VARGPTConfig, dtype: torch.dtype, device: str = "meta"
) -> dict[str, Any]:
    """Return a batch of `count` equal rows: ids that say what stands where, pictures on `device`."""
    tokens = config.tokens
    seen = [tokens.image] * (row.seen * config.vision.patches)
    codes = [tokens.image_gen] * drawn_tokens(config)
    drawn = [tokens.image_gen_start, *codes, tokens.image_gen_end] * row.drawn
    text = [_plain_id(config)] * min(row.text, config.language.max_positions - len(seen) - len(drawn))
    ids_BT = torch.tensor(seen + text + drawn)[None].repeat(count, 1)
    labels_BT = torch.full_like(ids_BT, IGNORED)
    trained = slice(len(seen), len(seen) + min(row.trained, len(text)))
    labels_BT[:, trained] = ids_BT[:, trained]
    batch: dict[str, Any] = {
        "input_ids": ids_BT,
        "attention_mask": torch.ones_like(ids_BT, dtype=torch.bool),
        "labels": labels_BT,
    }
    if row.seen:
        shape = count * row.seen, *config.vision.input_shape
        batch["pixel_values"] = torch.zeros(shape, dtype=dtype, device=device)
    if row.drawn:
        batch["size"] = config.tokenizer.largest
        shape = (count * row.drawn, 3, *config.tokenizer.picture_shapes[batch["size"]])
        batch["drawn_pixels"] = torch.zeros(shape, dtype=dtype, device=device)
    return batch


def drawn_tokens(config: VARGPTConfig) -> int:
    """Return the places of a drawn picture, of the largest of several sizes."""
    return config.picture_lengths[config.tokenizer.largest]


def _plain_id(config: VARGPTConfig) -> int:
    special = set(vars(config.tokens).values())
    return next(number for number in range(config.language.vocabulary) if number not in special)


def named_blocks(model: VARGPT) -> dict[str, nn.Module]:
    """Return the towers' blocks by their names in the model, and the image tokenizer as one."""
    names = {module: name for name, module in model.named_modules()}
    found = {names[block]: block for _, block in blocks(model)}
    return {**found, "image_tokenizer": model.image_tokenizer}


def build_empty(config: VARGPTConfig, dtype: torch.dtype = torch.float32) -> VARGPT:
    """Return the model on the meta device."""
    with torch.device("meta"):
        model = VARGPT(config)
    return model.to(dtype)


def trace_step(
    model: VARGPT,
    stage: Stage,
    row: RowShape,
    count: int,
    sharding: ShardingConfig,
    target: Target = "cuda",
    batch: dict[str, Any] | None = None,
) -> Trace:
    """Trace one step of a stage in its steady state, a batch after the first: forward, backward, optimizer.

    As in Lightning's automatic optimization, the gradients of the step before live until its own backward pass begins;
    with accumulation they stay. Parameters and buffers are not in the account.

    Args:
        model: on the meta device to predict, on the CPU to measure.
    """
    prepare_model(model, stage)
    arrange_blocks(model, replace(sharding, compile=False))
    module = module_of(model, stage, 1)
    some = next(model.parameters())
    module.to(some.device)  # its metrics too
    dtype = some.dtype
    if batch is None:  # of a pair there are two rows
        batch = batch_of(row, 2 * count if stage.head in PAIRED else count, model.config, dtype)
        batch["samples"] = count
    if isinstance(module, PreferenceModule):
        module.reference = _AnyReference()
    trained = {name: each for name, each in model.named_parameters() if each.requires_grad}
    optimizer = build_optimizer(module, stage.optimizer)
    prepare_states(optimizer, trained)
    own, beside = named_blocks(model), dict[str, nn.Module]()
    if isinstance(module, GRPOModule) and module.reference is not None:
        copies = named_blocks(module.reference).items()
        beside = {name: block for name, block in copies if block is not own[name]}
    with tracing(target, model, own, beside) as tracer:
        _know(tracer, batch, trained, optimizer)
        tracer.begin("forward")
        loss = module.training_step(batch, 0)
        if stage.accumulate == 1:
            optimizer.zero_grad()
        tracer.begin("backward")
        if isinstance(loss, Tensor):  # a batch may train nothing
            loss.backward()
        del loss
        tracer.begin("optimizer")
        if stage.optimizer.clip:
            nn.utils.clip_grad_norm_(list(trained.values()), stage.optimizer.clip)
        optimizer.step()
        tracer.note()
    return tracer.trace()


class _AnyReference:
    """Scores that are there without being computed: a stage has them before its first step."""

    def of(self, keys: Sequence[bytes], device: torch.device | str = "cpu") -> Tensor:
        return torch.zeros(len(keys), dtype=torch.float64, device=device)


def _know(tracer: StepTracer, batch: dict[str, Any], trained: dict[str, nn.Parameter], optimizer: Optimizer) -> None:
    for value in batch.values():
        if isinstance(value, Tensor):
            tracer.know(value, "inputs")
    for parameter in trained.values():
        if parameter.grad is not None:
            tracer.know(parameter.grad, "gradients")
    for state in optimizer.state.values():
        for value in state.values():
            if isinstance(value, Tensor):
                tracer.know(value, "optimizer")
    tracer.note()


def prepare_states(optimizer: Optimizer, trained: dict[str, nn.Parameter]) -> None:
    """Give every trained parameter a gradient, and the optimizer its states, as after the first step."""
    for parameter in trained.values():
        parameter.grad = torch.zeros_like(parameter)
    if not isinstance(optimizer, AdamW):
        optimizer.step()
        return
    for group in optimizer.param_groups:
        group["fused"], group["foreach"] = True, False
        for parameter in group["params"]:
            optimizer.state[parameter] = {
                "step": torch.zeros((), device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
