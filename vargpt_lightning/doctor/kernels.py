"""Kernels that this project calls, each on a few numbers and compared with plain mathematics in 64 bits.

Legend: B batch, H heads, T positions, D head dimension, N and M sides of a matrix.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from vargpt_lightning.doctor.findings import Check, Fault, Noteworthy, NotHere

PART = "kernels"
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
ROUNDING = {torch.float64: 1e-14, torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
"""Largest relative error of a result of some dozens of terms, by precision: a few units in the last place."""
TF32 = 2e-3
BACKENDS = {
    "mathematics": SDPBackend.MATH,
    "flash": SDPBackend.FLASH_ATTENTION,
    "memory-efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
}
UNAVAILABLE = ("No available kernel", "No viable backend", "not built", "was not compiled")
SIZE = (2, 2, 24, 16)  # B, H, T, D


def kernel_checks(device: torch.device) -> Iterator[Check]:
    """The checks of a device's kernels."""
    for dtype in DTYPES:
        yield Check(PART, f"matrix product, {_name(dtype)}", partial(product, device, dtype))
    for name in BACKENDS:
        yield Check(PART, f"SDPA, {name}", partial(sdpa, device, name))
    yield Check(PART, "SDPA as it is called", partial(sdpa, device, None))
    yield Check(PART, "FlexAttention, forward", partial(flex, device, False))
    yield Check(PART, "FlexAttention, backward", partial(flex, device, True))
    yield Check(PART, "convolution", partial(convolution, device))
    for bits in (8, 4):
        yield Check(PART, f"bitsandbytes, {bits} bits", partial(low_bits, device, bits))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _numbers(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers in 64 bits on the processor, the same everywhere."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def error_of(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest expected number; infinite where something is no number."""
    found = found.detach().double().cpu()
    if not bool(found.isfinite().all()):
        return math.inf
    return float((found - expected).abs().max() / expected.abs().max())


def require_close(found: Tensor, expected: Tensor, dtype: torch.dtype, what: str) -> float:
    """Compare with mathematics in 64 bits; return the relative error.

    Raises:
        Fault: it is larger than rounding explains, or the result is of another type.
    """
    if found.dtype != dtype:
        raise Fault(f"{what}: the result is {_name(found.dtype)}, expected {_name(dtype)}")
    error = error_of(found, expected)
    if not error <= ROUNDING[dtype]:
        raise Fault(f"{what}: off by {error:.1e} of the largest number; expected at most {ROUNDING[dtype]:.1e}")
    return error


def product(device: torch.device, dtype: torch.dtype) -> str:
    """A matrix product. With 32 bits the inputs are not rounded to TF32 unless somebody has asked for that."""
    a_NM, b_MN = _numbers(48, 64), _numbers(64, 48, seed=1)
    a, b = a_NM.to(device, dtype), b_MN.to(device, dtype)
    expected = a.double().cpu() @ b.double().cpu()
    found = a @ b
    if dtype == torch.float32 and device.type == "cuda" and torch.get_float32_matmul_precision() != "highest":
        error = error_of(found, expected)
        if error <= TF32:
            return Noteworthy(f"TF32 is allowed (float32_matmul_precision): off by {error:.1e}")
    error = require_close(found, expected, dtype, f"product in {_name(dtype)}")
    return f"off by {error:.1e} at most"


def plain_attention(qkv: Sequence[Tensor], mask: Tensor | None) -> Tensor:
    """Attention as its formula says, in the numbers' own precision."""
    q, k, v = qkv
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return scores.softmax(dim=-1) @ v


def sdpa(device: torch.device, name: str | None) -> str:
    """Scaled dot-product attention and its gradients by one backend (None: torch's choice), with and without a mask.

    Raises:
        Fault: results or gradients are wrong.
        NotHere: the device has no such kernel.
    """
    told: list[str] = []
    for dtype in (torch.float32, torch.bfloat16):
        for mask in (None, _block_mask(device)):
            words = f"{_name(dtype)}{'' if mask is None else ', masked'}"
            inputs = [_numbers(*SIZE, seed=seed).to(device, dtype).requires_grad_() for seed in range(3)]
            wide = [each.detach().double().cpu().requires_grad_() for each in inputs]
            expected = plain_attention(wide, None if mask is None else mask.cpu())
            try:
                found = _attend(inputs, mask, name)
            except RuntimeError as error:
                if name is not None and any(text in str(error) for text in UNAVAILABLE):
                    continue
                raise
            off = require_close(found, expected.detach(), dtype, f"attention, {words}")
            found.sum().backward()
            expected.sum().backward()
            _require_gradients(inputs, wide, ROUNDING[dtype], f"attention, {words}")
            told.append(f"{words} off by {off:.0e}")
    if not told:
        raise NotHere(f"{device.type} has no such kernel")
    return "; ".join(told)


def _require_gradients(inputs: Sequence[Tensor], wide: Sequence[Tensor], rounding: float, what: str) -> None:
    """Compare gradients, each a sum of some more terms than the results are."""
    for own, other, letter in zip(inputs, wide, "qkv", strict=True):
        assert own.grad is not None and other.grad is not None
        off = float((own.grad.double().cpu() - other.grad).abs().max())
        if not off <= 10 * rounding * max(1.0, float(other.grad.abs().max())):
            raise Fault(f"{what}: the gradient of {letter} is off by {off:.1e}")


def _attend(inputs: Sequence[Tensor], mask: Tensor | None, name: str | None) -> Tensor:
    q, k, v = inputs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # each kernel that cannot be used says why
        if name is None:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        with sdpa_kernel(BACKENDS[name]):
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def _block_mask(device: torch.device) -> Tensor:
    """(T, T): words one after the other, then a picture whose scales see themselves and all before."""
    ends_T = torch.tensor([*range(8), *([11] * 4), *([SIZE[2] - 1] * 12)], device=device)
    return torch.arange(SIZE[2], device=device)[None] <= ends_T[:, None]


def flex(device: torch.device, backward: bool) -> str:
    """FlexAttention with such a mask, compiled on a GPU as the language model calls it.

    Raises:
        Fault: the result or a gradient is wrong.
        NotHere: this device has no such kernel.
    """
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    if backward and device.type == "cpu":
        raise NotHere("torch has no backward pass of it on a processor")
    mask = _block_mask(device)
    ends_T = mask.sum(dim=1) - 1
    blocks = create_block_mask(
        lambda b, h, query, key: key <= ends_T[query], None, None, SIZE[2], SIZE[2], device=str(device)
    )
    inputs = [_numbers(*SIZE, seed=seed).to(device, torch.float32).requires_grad_(backward) for seed in range(3)]
    wide = [each.detach().double().cpu().requires_grad_() for each in inputs]
    expected = plain_attention(wide, mask.cpu())
    call: Any = torch.compile(flex_attention) if device.type == "cuda" else flex_attention
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = call(*inputs, block_mask=blocks)
    tolerance = ROUNDING[torch.float32] if device.type == "cpu" else TF32  # Triton multiplies in TF32 by itself
    if (error := error_of(found, expected.detach())) > tolerance:
        raise Fault(f"FlexAttention: off by {error:.1e}; expected at most {tolerance:.0e}")
    if not backward:
        return f"off by {error:.1e} at most"
    found.sum().backward()
    expected.sum().backward()
    _require_gradients(inputs, wide, tolerance, "FlexAttention")
    return "gradients agree"


def convolution(device: torch.device) -> str:
    """A convolution of the image tokenizer's shape, and group normalisation."""
    x_BCHW, weight = _numbers(2, 32, 12, 12), _numbers(32, 32, 3, 3, seed=1) / 17
    x, w = x_BCHW.to(device, torch.float32), weight.to(device, torch.float32)
    expected = F.group_norm(F.conv2d(x.double().cpu(), w.double().cpu(), padding=1), 8)
    found = F.group_norm(F.conv2d(x, w, padding=1), 8)
    error = error_of(found, expected)
    if device.type == "cuda" and torch.backends.cudnn.allow_tf32 and ROUNDING[torch.float32] < error <= TF32:
        return Noteworthy(f"cuDNN multiplies in TF32, its default: off by {error:.1e}")
    if not error <= 10 * ROUNDING[torch.float32]:
        raise Fault(f"convolution: off by {error:.1e}; expected at most {10 * ROUNDING[torch.float32]:.0e}")
    return f"off by {error:.1e} at most"


def low_bits(device: torch.device, bits: int) -> str:
    """A frozen layer in 8 or 4 bits beside the same layer as it was.

    Raises:
        Fault: the layer computes something else.
        NotHere: bitsandbytes is not installed.
    """
    import importlib.util

    from vargpt_lightning.models.language.quantization import LowBitLinear

    if importlib.util.find_spec("bitsandbytes") is None:
        raise NotHere("bitsandbytes is not installed: pip install -e '.[quant]' in the repository")
    layer = torch.nn.Linear(256, 64)
    with torch.no_grad():
        layer.weight.copy_(_numbers(64, 256, seed=1).float())
        layer.bias.zero_()
    x_BN = _numbers(4, 256).float().to(device)
    expected = F.linear(x_BN.double().cpu(), layer.weight.detach().double())
    with torch.no_grad():
        found = LowBitLinear(layer.to(device), bits, device)(x_BN)
    error = float((found.double().cpu() - expected).norm() / expected.norm())
    most = {8: 0.02, 4: 0.15}[bits]  # an eighth of a step of 255, and NF4's own error on normal numbers, with room
    if not error <= most:
        raise Fault(f"{bits} bits: off by {100 * error:.1f} % of the output; expected at most {100 * most:.0f} %")
    return f"off by {100 * error:.1f} % of the output"
