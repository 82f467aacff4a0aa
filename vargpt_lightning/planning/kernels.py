"""Which kernels a device would take, and what they take for themselves.

Legend: B batch, H heads, T queries, S keys, D head dimension.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vargpt_lightning.models.decoder import attention

Target = Literal["cpu", "cuda"]
aten = torch.ops.aten
HALVES = (torch.bfloat16, torch.float16)


@contextmanager
def device_kernels(target: Target) -> Iterator[None]:
    """Call the attention kernel that the target would choose; the meta device by itself takes the plain mathematics.

    CPU: the fused kernel unless there is dropout. CUDA: flash attention for 16 bits without a mask, else the
    memory-efficient kernel, with a boolean mask made into a bias of the queries' type, as torch does it.

    The function is replaced, since a torch function mode is not there while a backward pass computes again. Bicubic
    resizing, for which the meta device takes many operations and most of a trace's time, is replaced by its result.
    """
    original, in_scales = F.scaled_dot_product_attention, attention.block_causal_attention
    resize = F.interpolate

    def attend(query: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return _attend(target, query, *args, **kwargs) if query.is_meta else original(query, *args, **kwargs)

    def interpolate(input: Tensor, size: Any = None, *args: Any, **kwargs: Any) -> Tensor:
        trained = input.requires_grad and torch.is_grad_enabled()
        if input.is_meta and kwargs.get("mode") == "bicubic" and size is not None and not trained:
            return input.new_empty((*input.shape[:2], *size))
        return resize(input, size, *args, **kwargs)

    F.scaled_dot_product_attention = attend
    F.interpolate = interpolate
    attention.block_causal_attention = partial(in_scales, split=target == "cpu")
    try:
        yield
    finally:
        F.scaled_dot_product_attention = original
        F.interpolate = resize
        attention.block_causal_attention = in_scales


def _attend(
    target: Target,
    q_BHTD: Tensor,
    k_BHSD: Tensor,
    v_BHSD: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if k_BHSD.shape[1] != q_BHTD.shape[1]:
        groups = q_BHTD.shape[1] // k_BHSD.shape[1]
        k_BHSD, v_BHSD = k_BHSD.repeat_interleave(groups, 1), v_BHSD.repeat_interleave(groups, 1)
    bias = _bias(attn_mask, q_BHTD)
    qkv = (q_BHTD, k_BHSD, v_BHSD)
    if target == "cpu" and dropout_p == 0:
        fused = aten._scaled_dot_product_flash_attention_for_cpu
        return fused(*qkv, dropout_p, is_causal, attn_mask=bias, scale=scale)[0]
    if target == "cpu":
        return aten._scaled_dot_product_attention_math(*qkv, bias, dropout_p, is_causal, scale=scale)[0]
    if bias is None and q_BHTD.dtype in HALVES:
        return aten._scaled_dot_product_flash_attention(*qkv, dropout_p, is_causal, False, scale=scale)[0]
    if bias is not None:
        bias = bias.expand(*q_BHTD.shape[:2], q_BHTD.shape[2], k_BHSD.shape[2])
    trained = any(tensor.requires_grad for tensor in qkv)
    efficient = aten._scaled_dot_product_efficient_attention
    return efficient(*qkv, bias, trained, dropout_p, is_causal, scale=scale)[0]


def _bias(mask: Tensor | None, queries: Tensor) -> Tensor | None:
    if mask is None or mask.dtype != torch.bool:
        return mask
    zeros = torch.zeros_like(mask, dtype=queries.dtype, device=queries.device)
    return zeros.masked_fill_(mask.logical_not(), -math.inf)


def workspace(packet: Any, args: Any, out: Any) -> int:
    """Return the bytes that a CPU kernel allocates for itself while it runs; 0 for those not known to."""
    return 0
