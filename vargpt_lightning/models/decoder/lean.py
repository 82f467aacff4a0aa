"""The decoder's operations on CPU in fewer passes over memory, keeping less for the backward pass.

What is cheap to compute again (normalised tokens, queries and keys of unit length, the GELU) is not kept. Autograd's
own operations serve where a compiler, autocast or another device does better, and where no gradient is wanted.

Legend: B batch, L visual tokens, C width, H heads, D head dimension, N hidden width.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LAYER_NORM = torch.ops.aten.native_layer_norm
_LAYER_NORM_BACKWARD = torch.ops.aten.native_layer_norm_backward
_ATTEND = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_ATTEND_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
SMALLEST_NORM = 1e-12
ALONE = 100  # tokens of a scale that attends faster by itself than under a mask with the ones before
Slices = tuple[slice, ...]


def lean(x: Tensor) -> bool:
    """Tell whether the functions below serve for this tensor's gradient."""
    if x.device.type != "cpu" or not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    return type(x) is Tensor and not torch.is_autocast_enabled("cpu")


class Modulated(NamedTuple):
    """Tokens that are still to be normalised without weights, multiplied by 1 + scale, and moved by the shift."""

    x_BLC: Tensor
    norm: nn.LayerNorm
    scale_B1C: Tensor
    shift_B1C: Tensor

    def tokens(self) -> Tensor:
        """Do it: (B, L, C)."""
        return torch.addcmul(self.shift_B1C, self.norm(self.x_BLC), 1 + self.scale_B1C)

    def through(self, linear: nn.Linear, *bias: Tensor) -> Tensor:
        """Do it and apply a linear layer, with its own bias or the given one."""
        if _plain(linear) and lean(self.x_BLC):
            given = bias[0] if bias else linear.bias
            return _ModulatedLinear.apply(
                self.x_BLC, self.scale_B1C, self.shift_B1C, linear.weight, given, self.norm.eps
            )
        return linear(self.tokens(), *bias)


class QueryKeyValue(nn.Linear):
    """Queries, keys and values by one matrix, whose bias is put together elsewhere."""

    def forward(self, x_BLC: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.linear(x_BLC, self.weight, bias)


def _plain(linear: nn.Module) -> bool:
    """Tell whether a layer is no more than its weight and bias: neither replaced by another kind nor hooked into."""
    return type(linear) in (nn.Linear, QueryKeyValue) and not (linear._forward_hooks or linear._forward_pre_hooks)


def gelu_linear(h_BLN: Tensor, linear: nn.Module) -> Tensor:
    """Apply the GELU (tanh form) and a linear layer."""
    if _plain(linear) and lean(h_BLN):
        return _GeluLinear.apply(h_BLN, linear.weight, linear.bias)
    return linear(F.gelu(h_BLN, approximate="tanh"))


def gated_residual(x_BLC: Tensor, y_BLC: Tensor, gate_B1C: Tensor, drop_path: nn.Module) -> Tensor:
    """Add a branch times its gate, dropped for some samples."""
    if lean(x_BLC):
        return torch.addcmul(x_BLC, y_BLC, drop_path(gate_B1C))
    return x_BLC + drop_path(y_BLC * gate_B1C)


def unit_length(x_BHLD: Tensor, factor: Tensor | None = None) -> Tensor:
    """Give rows the length one, or that of a factor which broadcasts over them."""
    length_BHL1 = x_BHLD.norm(dim=-1, keepdim=True).clamp_min(SMALLEST_NORM)
    return x_BHLD * (length_BHL1.reciprocal() if factor is None else factor / length_BHL1)


def _linear_grads(ctx: Any, first: int, grad: Tensor, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of weight and bias, inputs `first` and `first` + 1 of a function."""
    flat = grad.flatten(0, -2)
    weight_grad = flat.T @ x.flatten(0, -2) if ctx.needs_input_grad[first] else None
    return weight_grad, flat.sum(0) if ctx.needs_input_grad[first + 1] else None


class _ModulatedLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_BLC: Tensor,
        scale_B1C: Tensor,
        shift_B1C: Tensor,
        weight_NC: Tensor,
        bias_N: Tensor | None,
        eps: float,
    ) -> Tensor:
        y_BLC, mean, rstd = _LAYER_NORM(x_BLC, x_BLC.shape[-1:], None, None, eps)
        ctx.save_for_backward(x_BLC, mean, rstd, scale_B1C, shift_B1C, weight_NC)
        return F.linear(torch.addcmul(shift_B1C, y_BLC, 1 + scale_B1C, out=y_BLC), weight_NC, bias_N)

    @staticmethod
    def backward(ctx: Any, grad_BLN: Tensor) -> Any:
        x_BLC, mean, rstd, scale_B1C, shift_B1C, weight_NC = ctx.saved_tensors
        factor_B1C = 1 + scale_B1C
        y_BLC = (x_BLC - mean).mul_(rstd)
        modulated_BLC = torch.addcmul(shift_B1C, y_BLC, factor_B1C)
        weight_grad, bias_grad = _linear_grads(ctx, 3, grad_BLN, modulated_BLC)
        grad_BLC = grad_BLN @ weight_NC
        scale_grad = y_BLC.mul_(grad_BLC).sum_to_size(scale_B1C.shape)
        shift_grad = grad_BLC.sum_to_size(shift_B1C.shape)
        x_grad = None
        if ctx.needs_input_grad[0]:
            whole = [True, False, False]
            inner_BLC = grad_BLC.mul_(factor_B1C)
            x_grad = _LAYER_NORM_BACKWARD(inner_BLC, x_BLC, x_BLC.shape[-1:], mean, rstd, None, None, whole)[0]
        return x_grad, scale_grad, shift_grad, weight_grad, bias_grad, None


class _GeluLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h_BLN: Tensor, weight_CN: Tensor, bias_C: Tensor) -> Tensor:
        ctx.save_for_backward(h_BLN, weight_CN)
        return F.linear(F.gelu(h_BLN, approximate="tanh"), weight_CN, bias_C)

    @staticmethod
    def backward(ctx: Any, grad_BLC: Tensor) -> Any:
        h_BLN, weight_CN = ctx.saved_tensors
        weight_grad, bias_grad = _linear_grads(ctx, 1, grad_BLC, F.gelu(h_BLN, approximate="tanh"))
        h_grad = None
        if ctx.needs_input_grad[0]:
            h_grad = torch.ops.aten.gelu_backward(grad_BLC @ weight_CN, h_BLN, approximate="tanh")
        return h_grad, weight_grad, bias_grad


def packed_attention(
    qkv_BL3HD: Tensor, sharpness: Tensor | None, scale: float, slices: Slices, mask_LL: Tensor
) -> Tensor:
    """Attend block by block (see `block_causal_attention`) from queries, keys and values in one tensor.

    With a sharpness (1, H, 1, 1), which queries are multiplied by, queries and keys get unit length before. Returns
    (B, L, H, D), and keeps what came in and what goes out alone.
    """
    return _PackedAttention.apply(qkv_BL3HD, sharpness, scale, slices, mask_LL)


class _PackedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, qkv_BL3HD: Tensor, sharpness: Tensor | None, scale: float, slices: Slices, mask_LL: Tensor
    ) -> Tensor:
        q, k, v = qkv_BL3HD.permute(2, 0, 3, 1, 4)
        if sharpness is not None:
            q, k = unit_length(q, sharpness), unit_length(k)
        y_BLHD = torch.empty_like(qkv_BL3HD[:, :, 0], memory_format=torch.contiguous_format)
        y = y_BLHD.transpose(1, 2)
        sums = []
        for rows, keys, mask in _parts(slices, mask_LL, v.dtype):
            part, sums_BHl = _ATTEND(q[:, :, rows], k[:, :, keys], v[:, :, keys], attn_mask=mask, scale=scale)
            y[:, :, rows] = part
            sums.append(sums_BHl)
        ctx.save_for_backward(qkv_BL3HD, sharpness, y_BLHD, mask_LL, *sums)
        ctx.scale, ctx.slices = scale, slices
        return y_BLHD

    @staticmethod
    def backward(ctx: Any, grad_BLHD: Tensor) -> Any:
        qkv_BL3HD, sharpness, y_BLHD, mask_LL, *sums = ctx.saved_tensors
        raw_q, raw_k, v = qkv_BL3HD.permute(2, 0, 3, 1, 4)
        q, k = raw_q, raw_k
        if sharpness is not None:
            q, k = unit_length(q, sharpness), unit_length(k)
        grad, y = grad_BLHD.transpose(1, 2), y_BLHD.transpose(1, 2)
        grads_BL3HD = torch.empty_like(qkv_BL3HD, memory_format=torch.contiguous_format)
        grads = grads_BL3HD.permute(2, 0, 3, 1, 4)
        # the last part first, since it alone reaches all keys
        for number, (rows, keys, mask) in reversed(list(enumerate(_parts(ctx.slices, mask_LL, v.dtype)))):
            found = _ATTEND_BACKWARD(
                grad[:, :, rows], q[:, :, rows], k[:, :, keys], v[:, :, keys], y[:, :, rows], sums[number], 0.0, False,
                attn_mask=mask, scale=ctx.scale,
            )  # fmt: skip
            grads[0][:, :, rows] = found[0]
            whole = keys.stop == k.shape[2]
            for name in (1, 2):
                grads[name].copy_(found[name]) if whole else grads[name][:, :, keys].add_(found[name])
        sharpness_grad = None
        if sharpness is not None:
            sharpness_grad = _through_length(grads[0], raw_q, q, sharpness).div_(sharpness)
            _through_length(grads[1], raw_k, k, None)
        return grads_BL3HD, sharpness_grad, None, None, None


def _parts(slices: Slices, mask_LL: Tensor, kind: torch.dtype) -> list[tuple[slice, slice, Tensor | None]]:
    """Return rows, their keys and their mask: small scales together by a mask, then each large one and the last.

    The kernel takes masks in float32 for values in 16 bits, but with float64 some sizes go wrong without AVX-512.
    """
    large = [part for part in slices[:-1] if part.stop - part.start >= ALONE] + [slices[-1]]
    parts: list[tuple[slice, slice, Tensor | None]] = [(part, slice(0, part.stop), None) for part in large]
    first = slice(0, large[0].start)
    if first.stop:
        seen = mask_LL[first, first]
        added = torch.zeros(seen.shape, dtype=torch.promote_types(kind, torch.float32))
        parts.insert(0, (first, first, added.masked_fill_(~seen, -torch.inf)))
    return parts


def _through_length(grad: Tensor, raw: Tensor, unit: Tensor, factor: Tensor | None) -> Tensor:
    """Turn the gradient of rows of a given length, in place, into that of the raw rows; return that of log length."""
    length_BHL1 = raw.norm(dim=-1, keepdim=True)
    inverse_BHL1 = length_BHL1.clamp_min(SMALLEST_NORM).reciprocal()
    along_BHL1 = (grad * unit).sum(-1, keepdim=True)
    back_BHL1 = (along_BHL1 * inverse_BHL1.square()).masked_fill_(length_BHL1 <= SMALLEST_NORM, 0.0)
    grad.mul_(inverse_BHL1 if factor is None else inverse_BHL1 * factor)
    grad.addcmul_(raw, back_BHL1, value=-1)
    return along_BHL1.sum((0, 2), keepdim=True)
