"""Muon for matrices and convolution kernels, AdamW for all else, as one optimizer.

torch's own Muon takes matrices alone and wants a second optimizer beside it, which automatic optimization does not
drive.

Source: Jordan et al., "Muon: an optimizer for hidden layers" (2024); the scale of the update is that of Liu et al.,
"Muon is scalable for LLM training" (arXiv 2502.16982, equation 4), so that AdamW's learning rates carry over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from vargpt_lightning.distributed.tensors import spread, whole

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


def orthogonalize(matrix_MN: Tensor, iterations: int = ITERATIONS) -> Tensor:
    """Return the matrix with its singular values pushed towards one, by Newton-Schulz iterations of degree five."""
    a, b, c = COEFFICIENTS
    tall = matrix_MN.shape[0] > matrix_MN.shape[1]
    x = matrix_MN.T if tall else matrix_MN
    x = x / (x.norm() + 1e-7)
    for _ in range(iterations):
        gram = x @ x.T
        x = a * x + torch.addmm(gram, gram, gram, beta=b, alpha=c) @ x
    return x.T if tall else x


class Muon(Optimizer):
    """One step of Muon for groups with `muon=True`, of AdamW for the others.

    A sharded matrix's update is gathered, and each process orthogonalises it and keeps its own rows: as much traffic as
    gathering the matrix for a forward pass, and as much arithmetic in each process as one alone would have. Momentum
    stays sharded.

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
                for parameter in with_gradient:
                    self._muon(parameter, group)
            elif with_gradient:
                self._adamw(with_gradient, group)
        return loss

    def _muon(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        gradient = parameter.grad
        assert gradient is not None
        momentum = state["momentum"].mul_(group["momentum"]).add_(gradient)
        update = gradient.add(momentum, alpha=group["momentum"])
        update_MN = whole(update).reshape(update.shape[0], -1)
        scale = 0.2 * max(update_MN.shape) ** 0.5
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        step = orthogonalize(update_MN).reshape(parameter.shape)
        parameter.add_(spread(step, parameter), alpha=-group["lr"] * scale)

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
