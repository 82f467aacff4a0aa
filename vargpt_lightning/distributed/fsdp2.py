"""A VARGPT's blocks: which there are, activations computed again, compilation, and their sharding (FSDP2).

What does not belong to a block (embeddings, heads, projectors, the decoder's conditions) is sharded as one group with
the whole model, gathered when its forward pass begins.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from vargpt_lightning.models.tokenizer.multi_scale import GATHERED
from vargpt_lightning.models.vargpt import VARGPTModel
from vargpt_lightning.models.vision.tower import blocks_of
from vargpt_lightning.recipe.sharding import ShardingConfig

MATRIX_PRODUCTS = (torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.bmm.default)
ATTENTION = (
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
)


def blocks(model: VARGPTModel) -> Iterator[tuple[int, nn.Module]]:
    """Yield each tower's blocks, with their places in the tower."""
    yield from enumerate(model.language_model.blocks)
    yield from enumerate(blocks_of(model.vision_tower))
    yield from enumerate(model.visual_decoder.layers())


def arrange_blocks(model: VARGPTModel, config: ShardingConfig) -> None:
    """Set up checkpointing and compilation of the blocks; a second call changes nothing."""
    if model.config.language.checkpoint_activations and config.checkpointing == "none":
        language = set(model.language_model.blocks)
    else:
        language = set()
    block: Any
    for index, block in blocks(model):
        if getattr(block, "_arranged", False):
            continue
        block._arranged = True
        if hasattr(block, "gradient_checkpointing"):
            # transformers' own recomputes the hooks too, which gather sharded weights
            block.gradient_checkpointing = False
        if block in language or config.checkpoints(index):
            recompute(block, selective=config.checkpointing == "selective")
        if config.compile:
            block.compile()


def recompute(block: nn.Module, selective: bool = False) -> None:
    """Compute the block's activations again in the backward pass.

    The forward method is replaced, not the module wrapped: names of parameters stay as they are, and hooks of sharding
    run around it once.
    """
    settings: dict[str, Any] = {"use_reentrant": False}
    if selective:
        settings["context_fn"] = _selective_contexts
    block.forward = partial(checkpoint, block.forward, **settings)


class _Selection:
    """Keep attention and every second matrix product, the rest is computed again."""

    def __init__(self) -> None:
        self.products = {False: 0, True: 0}

    def __call__(self, context: Any, operation: Any, *args: Any, **keywords: Any) -> CheckpointPolicy:
        if operation in ATTENTION:
            return CheckpointPolicy.MUST_SAVE
        if operation in MATRIX_PRODUCTS:
            self.products[context.is_recompute] += 1
            if self.products[context.is_recompute] % 2:
                return CheckpointPolicy.MUST_SAVE
        return CheckpointPolicy.PREFER_RECOMPUTE


def _selective_contexts() -> Any:
    return create_selective_checkpoint_contexts(_Selection())


def _pass(group: nn.Module, _: Any) -> None:
    group._passed.fill_(True)  # type: ignore[operator]


def passed(model: VARGPTModel) -> bool:
    """Whether each sharded group that is trained in mixed precision has been passed by a batch.

    Until then torch cannot keep its gradients whole for the next batch: it converts what it has not gathered yet.
    """
    return all(bool(getattr(module, "_passed", True)) for module in model.modules())


def shard(model: VARGPTModel, mesh: DeviceMesh, config: ShardingConfig, precision: str = "32-true") -> None:
    """Shard a model's parameters in place, frozen ones too: each process keeps its part of each.

    Args:
        mesh: one dimension shards; with two, the first is of copies.
        precision: "32-true", "bf16-mixed" or "16-mixed" computes in 16 bits from weights in 32, reduces in 32;
            "bf16-true" has all in 16. The image tokenizer computes in 32 bits always: its codes are nearest ones.
    """
    for parameter in model.parameters():
        if not parameter.numel():  # a tower's register tokens where it has none: torch cannot reduce an empty tensor
            parameter.requires_grad_(False)
    kind = {"bf16": torch.bfloat16, "16": torch.float16}.get(precision.partition("-")[0])
    mixed = precision.endswith("-mixed")
    policy = MixedPrecisionPolicy(param_dtype=kind if mixed else None, reduce_dtype=torch.float32 if mixed else None)
    offload = CPUOffloadPolicy(pin_memory=mesh.device_type != "cpu") if config.offload else OffloadPolicy()
    shared: dict[str, Any] = {"mesh": mesh, "offload_policy": offload}
    # without gradients nothing is reduced; torch would look for what to convert in groups that no batch has passed
    frozen = MixedPrecisionPolicy(param_dtype=policy.param_dtype)
    groups = [block for _, block in blocks(model)] + ([] if model.vision_tower is None else [model.vision_tower])
    for group in groups:
        trained = any(parameter.requires_grad for parameter in group.parameters())
        fully_shard(group, **shared, mp_policy=policy if trained else frozen, reshard_after_forward=config.reshard)
        if trained and mixed:
            group._passed = torch.tensor(False, device="cpu")  # a tensor: compiled blocks change it in place
            group.register_forward_pre_hook(_pass)
    fully_shard(model.image_tokenizer, **shared, reshard_after_forward=config.reshard)
    for method in GATHERED:
        register_fsdp_forward_method(model.image_tokenizer, method)
    # the batch's pictures are for the towers to convert
    outside = MixedPrecisionPolicy(
        param_dtype=policy.param_dtype, reduce_dtype=policy.reduce_dtype, cast_forward_inputs=False
    )
    fully_shard(model, **shared, mp_policy=outside, reshard_after_forward=False)
