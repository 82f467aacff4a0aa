"""Frozen linear weights kept in 8 or 4 bits, by bitsandbytes; products are computed in their inputs' precision.

So many elements in a row share a scale, their largest magnitude in 32 bits, and each is the nearest of 16 values that
fit a normal distribution (NF4; QLoRA, arXiv 2305.14314, section 3), or of 255 evenly spaced ones.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vargpt_lightning.models.core.exact import KeepsFloat32
from vargpt_lightning.models.core.submodules import SUBMODULES
from vargpt_lightning.models.decoder.lean import QueryKeyValue
from vargpt_lightning.utils.errors import UserError, install_hint

BLOCK = {4: 64, 8: 256}
"""How many elements share a scale, by the bits of an element."""
WHOLE = ("lm_head", "head", "word_embed", "patch_embedding")
"""Layers that stay as they are: small ones at the ends of the towers, where an error shows most."""


class LowBitLinear(KeepsFloat32):
    """A frozen linear layer whose weight is kept in few bits.

    The weight is in buffers that no checkpoint holds, and that are not spread over processes: each has all of it.

    Args:
        linear: the layer that it stands for; on the meta device nothing is computed.
        bits: 4 or 8.
        device: where the weight is packed and stays; None leaves it where it is.
    """

    in_float32 = ("scales",)
    packed: Tensor
    scales: Tensor

    def __init__(self, linear: nn.Linear, bits: int, device: torch.device | None = None) -> None:
        super().__init__()
        self.bits = bits
        self.out_features, self.in_features = linear.weight.shape
        packed, scales = _pack(linear.weight.detach().to(device), bits)
        self.register_buffer("packed", packed, persistent=False)
        self.register_buffer("scales", scales, persistent=False)
        self.bias = linear.bias

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return the layer's output; a frozen `bias` may be given in place of its own."""
        bias = self.bias if bias is None else bias
        kind = x.device.type
        if kind != "meta" and torch.is_autocast_enabled(kind):
            x = x.to(torch.get_autocast_dtype(kind))
        bias = None if bias is None else bias.to(x.dtype)
        product: Tensor = _Product.apply(
            x, bias, self.packed, self.scales, self.bits, (self.out_features, self.in_features)
        )
        return product

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bits={self.bits}"


class _Product(torch.autograd.Function):
    """x W^T + b, that keeps the packed weight alone for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, bias: Tensor | None, packed: Tensor, scales: Tensor, bits: int, shape: tuple[int, int]
    ) -> Tensor:
        # not as saved tensors: a block whose activations are computed again would compute its last product for them
        ctx.weight = (packed, scales, bits, shape)
        return F.linear(x, _unpack(packed, scales, bits, shape, x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        packed, scales, bits, shape = ctx.weight
        weight = _unpack(packed, scales, bits, shape, gradient.dtype)
        return gradient @ weight, None, None, None, None, None


def pack_frozen(model: nn.Module, bits: Mapping[str, int], device: torch.device | None = None) -> None:
    """Keep the frozen linear weights of named submodules in few bits from now on, in place; the full ones are let go.

    Args:
        bits: a submodule's name to 4 or 8.
        device: where weights are packed and stay; None leaves them where they are.

    Raises:
        UserError: a submodule has no frozen linear weights, or bitsandbytes is not installed.
    """
    for name, count in bits.items():
        parts = [getattr(model, part) for part in SUBMODULES[name]]
        found = [place for part in parts if part is not None for place in _frozen_layers(part)]
        if not found:
            raise UserError(f"frozen_bits: {name} has no frozen linear weights in this model; leave it out")
        for parent, child, layer in found:
            setattr(parent, child, LowBitLinear(layer, count, device))


def low_bit_layers(model: nn.Module) -> dict[str, LowBitLinear]:
    """Return the layers that are kept in few bits, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LowBitLinear)}


def _frozen_layers(module: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            # other classes do more than a product
            if not isinstance(child, nn.Linear) or type(child) not in (nn.Linear, QueryKeyValue):
                continue
            if name not in WHOLE and not child.weight.requires_grad:
                yield parent, name, child


def _pack(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Return a weight's elements in few bits, filled up to whole blocks, and the blocks' scales (float32)."""
    blocks = math.ceil(weight.numel() / BLOCK[bits])
    if weight.is_meta:
        packed = torch.empty(blocks * BLOCK[bits] * bits // 8, 1, dtype=torch.uint8, device="meta")
        return packed, torch.empty(blocks, device="meta")
    flat = F.pad(weight.flatten(), (0, blocks * BLOCK[bits] - weight.numel()))
    library = _bitsandbytes()
    if bits == 4:
        packed, state = library.quantize_4bit(flat, blocksize=BLOCK[4], quant_type="nf4")
    else:
        packed, state = library.quantize_blockwise(flat, code=_even_steps(weight.device), blocksize=BLOCK[8])
    return packed.view(-1, 1), state.absmax


def _unpack(packed: Tensor, scales: Tensor, bits: int, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    if packed.is_meta:
        return torch.empty(shape, dtype=dtype, device="meta")
    library = _bitsandbytes()
    if bits == 8:
        state = library.QuantState(scales, code=_even_steps(packed.device), blocksize=BLOCK[8], dtype=dtype)
        flat = library.dequantize_blockwise(packed, state)
    else:
        # as one row: those of odd length take another way on the CPU, which is compiled first
        row = torch.Size((1, 2 * packed.numel()))
        state = library.QuantState(scales, shape=row, blocksize=BLOCK[4], quant_type="nf4", dtype=dtype)
        flat = library.dequantize_4bit(packed, state)
    weight: Tensor = flat.view(-1)[: math.prod(shape)].view(shape)
    return weight


@cache
def _even_steps(device: torch.device) -> Tensor:
    code: Tensor = _bitsandbytes().create_linear_map().to(device)
    return code


@cache
def _bitsandbytes() -> Any:
    try:
        with quiet_bitsandbytes():
            from bitsandbytes import functional
    except ImportError as error:
        raise UserError(f"frozen_bits: the package bitsandbytes is not installed; {install_hint('quant')}") from error
    return functional


@contextmanager
def quiet_bitsandbytes() -> Iterator[None]:
    """Import it inside the block, or what imports it: it warns of kernels for the CPU that are not used here."""
    log = logging.getLogger("bitsandbytes")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
