"""Cross-entropy of a head over a large vocabulary, some rows at a time: all logits at once are never held.

A chunk's logits give its loss and at once its gradients, so nothing is computed again and what is kept for the backward
pass is the gradients of hidden states and head. (As Liger Kernel does, arXiv 2410.10989.)

Legend: M trained positions, m of a chunk, V vocabulary, C width.
"""

from __future__ import annotations

from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from vargpt_lightning.models.core.exact import full_precision

LOGITS = 2**26
"""How many a batch may have that is computed at once."""
CHUNKS = 8
"""Of a batch with more. Their number is fixed, so that every operation is linear in the batch, as planning has it."""


def chunked(count: int, vocabulary: int, kind: torch.dtype) -> bool:
    """Tell whether so many trained positions are computed in chunks.

    In float16 they are not: gradients must know the scale of the loss before they are rounded.
    """
    return count * vocabulary > LOGITS and kind is not torch.float16


def by_chunks(head: nn.Module, hidden_MC: Tensor) -> TypeGuard[nn.Linear]:
    """Tell whether `head_loss` serves for a batch: it has many logits, and the head is no more than a matrix."""
    if type(head) is not nn.Linear or head.bias is not None or head._forward_hooks or head._forward_pre_hooks:
        return False
    return chunked(len(hidden_MC), head.out_features, _kind(hidden_MC))


def head_loss(hidden_MC: Tensor, weight_VC: Tensor, targets_M: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean cross-entropy of logits `hidden_MC` x `weight_VC`, and how many targets the argmax gets right."""
    kind = _kind(hidden_MC)
    hidden_MC, weight_VC = hidden_MC.to(kind), weight_VC.to(kind)
    trained = [torch.is_grad_enabled() and each.requires_grad for each in (hidden_MC, weight_VC)]
    with full_precision(hidden_MC):
        loss, correct = _HeadLoss.apply(hidden_MC, weight_VC, targets_M, *trained)
    return loss, correct


def _kind(x: Tensor) -> torch.dtype:
    """The type in which a linear layer would multiply."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if kind != "meta" and torch.is_autocast_enabled(kind) else x.dtype


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_MC: Tensor, weight_VC: Tensor, targets_M: Tensor, train_hidden: bool, train_head: bool
    ) -> tuple[Tensor, Tensor]:
        count = len(targets_M)
        hidden_grad_MC = torch.empty_like(hidden_MC) if train_hidden else None
        # chunks add up in float32, as the sums inside of one matrix product do
        head_grad_VC = torch.zeros_like(weight_VC, dtype=torch.float32) if train_head else None
        losses, corrects = [], []
        rows = -(-count // CHUNKS)
        for begin in range(0, count, rows):
            part = slice(begin, begin + rows)
            targets_m1 = targets_M[part, None]
            logits_mV = F.linear(hidden_MC[part], weight_VC).float()
            norm_m1 = logits_mV.logsumexp(-1, keepdim=True)
            losses.append((norm_m1 - logits_mV.gather(1, targets_m1)).sum())
            corrects.append((logits_mV.argmax(-1, keepdim=True) == targets_m1).sum())
            if not (train_hidden or train_head):
                continue
            grad_mV = logits_mV.sub_(norm_m1).exp_()
            grad_mV.scatter_add_(1, targets_m1, grad_mV.new_full(targets_m1.shape, -1.0)).div_(count)
            grad_mV = grad_mV.to(weight_VC.dtype)
            if hidden_grad_MC is not None:
                torch.mm(grad_mV, weight_VC, out=hidden_grad_MC[part])
            if head_grad_VC is not None:
                _add_product(head_grad_VC, grad_mV.T, hidden_MC[part])
        # not as saved tensors: they are results, given away once, and a copy of the head's would be a large one
        ctx.grads = hidden_grad_MC, head_grad_VC
        ctx.kinds = hidden_MC.dtype, weight_VC.dtype
        correct = torch.stack(corrects).sum()
        ctx.mark_non_differentiable(correct)
        return torch.stack(losses).sum() / count, correct

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, loss_grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        if ctx.grads is None:
            raise RuntimeError("the head's loss was passed backward already; its gradients are given away once")
        grads, ctx.grads = ctx.grads, None
        scaled = [
            None if grad is None else grad.mul_(loss_grad).to(kind) for grad, kind in zip(grads, ctx.kinds, strict=True)
        ]
        return *scaled, None, None, None


def _add_product(sum_VC: Tensor, a_Vm: Tensor, b_mC: Tensor) -> None:
    if a_Vm.dtype is sum_VC.dtype:
        sum_VC.addmm_(a_Vm, b_mC)
    else:
        sum_VC += a_Vm @ b_mC
