"""Muon for matrices and convolution kernels, AdamW for all else, as one optimizer.

torch's own Muon takes matrices alone and wants a second optimizer beside it, which automatic optimization does not
drive.

Source: Jordan et al., "Muon: an optimizer for hidden layers" (2024); the scale of the update is that of Liu et al.,
"Muon is scalable for LLM training" (arXiv 2502.16982, equation 4), so that AdamW's learning rates carry over.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from vargpt_lightning.distributed.tensors import spread, whole
from vargpt_lightning.modules.optim.newton_schulz import orthogonalize

STACKED = 2**17
"""Elements of matrices of one shape that are orthogonalised in one call; larger ones are faster one by one."""


class Muon(Optimizer):
    """One step of Muon for groups with `muon=True`, of AdamW for the others.

    A sharded matrix's update is gathered, and each process orthogonalises it and keeps its own rows: as much traffic as
    gathering the matrix for a forward pass, and as much arithmetic in each process as one alone would have. Momentum
    stays sharded. Small matrices of one shape are orthogonalised together.

    Args:
        groups: dicts of `params`, `lr`, `weight_decay`, `muon`; kernels of more than two dimensions are taken as
            matrices of their first dimension against all others.
        momentum: Nesterov momentum of Muon.
        betas, eps: of AdamW.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
    ) -> None:
        defaults = {"lr": lr, "weight_decay": 0.0, "muon": False, "momentum": momentum, "betas": betas, "eps": eps}
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            with_gradient = [parameter for parameter in group["params"] if parameter.grad is not None]
            if group["muon"]:
                self._muon(with_gradient, group)
            elif with_gradient:
                self._adamw(with_gradient, group)
        return loss

    def _muon(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        waiting: dict[Any, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for parameter in parameters:
            update_MN = self._nesterov(parameter, group)
            alike = waiting[update_MN.shape, update_MN.dtype, update_MN.device]
            alike.append((parameter, update_MN))
            if (len(alike) + 1) * update_MN.numel() > STACKED:
                self._move(alike, group)
                alike.clear()
        for alike in waiting.values():
            self._move(alike, group)

    def _nesterov(self, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        """Return the parameter's whole update as a matrix, not yet orthogonal."""
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        gradient = parameter.grad
        assert gradient is not None
        momentum = state["momentum"].mul_(group["momentum"]).add_(gradient)
        update = gradient.add(momentum, alpha=group["momentum"])
        return whole(update).reshape(update.shape[0], -1)

    def _move(self, alike: list[tuple[Tensor, Tensor]], group: dict[str, Any]) -> None:
        """Move parameters whose updates (M, N) have one shape."""
        if not alike:
            return
        steps_PMN = orthogonalize(torch.stack([update_MN for _, update_MN in alike]))
        scale = 0.2 * max(steps_PMN.shape[1:]) ** 0.5
        for (parameter, _), step_MN in zip(alike, steps_PMN, strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(spread(step_MN.reshape(parameter.shape), parameter), alpha=-group["lr"] * scale)

    def _adamw(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                zeros = (torch.zeros_like(parameter), torch.zeros_like(parameter))
                step = torch.zeros((), dtype=torch.float32)
                self.state[parameter] = {"step": step, "exp_avg": zeros[0], "exp_avg_sq": zeros[1]}
        states = [self.state[parameter] for parameter in parameters]
        adamw(
            parameters,
            [parameter.grad for parameter in parameters],  # type: ignore[misc]
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            foreach=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
