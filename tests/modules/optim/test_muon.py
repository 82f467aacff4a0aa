"""Muon's step for matrices, AdamW's for the rest."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vargpt_lightning.modules.optim.muon import Muon, orthogonalize


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (8, 8)])
def test_singular_values_come_near_one_and_directions_stay(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    inside = u.T @ orthogonalize(matrix) @ v.T
    assert inside.diag().min() > 0.5 and inside.diag().max() < 1.3
    assert (inside - inside.diag().diag()).abs().max() < 1e-3


def test_a_matrix_moves_along_its_orthogonalized_nesterov_momentum() -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(4, 3, 2, 2))  # a kernel is a matrix of 4 rows
    start, first, second = weight.detach().clone(), torch.randn(4, 3, 2, 2), torch.randn(4, 3, 2, 2)
    optimizer = Muon([{"params": [weight], "muon": True, "lr": 0.1, "weight_decay": 0.5}], lr=9.0, momentum=0.9)
    expected, momentum = start, torch.zeros_like(start)
    for gradient in (first, second):
        weight.grad = gradient.clone()
        optimizer.step()
        momentum = 0.9 * momentum + gradient
        update = orthogonalize((gradient + 0.9 * momentum).reshape(4, 12)).reshape(4, 3, 2, 2)
        expected = expected * (1 - 0.1 * 0.5) - 0.1 * 0.2 * 12**0.5 * update
    torch.testing.assert_close(weight.detach(), expected)


def test_all_other_parameters_take_adamws_step() -> None:
    torch.manual_seed(0)
    ours, theirs = (nn.Parameter(torch.arange(5.0)) for _ in range(2))
    muon = Muon([{"params": [ours], "weight_decay": 0.1}], lr=0.01, betas=(0.8, 0.9))
    adamw = torch.optim.AdamW([theirs], lr=0.01, betas=(0.8, 0.9), weight_decay=0.1)
    for _ in range(3):
        gradient = torch.randn(5)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        muon.step()
        adamw.step()
    torch.testing.assert_close(ours, theirs)


def test_parameters_without_a_gradient_stay() -> None:
    with_gradient, without = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimizer = Muon(
        [{"params": [with_gradient, without], "muon": True}, {"params": [nn.Parameter(torch.ones(2))]}], lr=0.1
    )
    with_gradient.grad = torch.eye(2)
    optimizer.step()
    assert torch.equal(without, torch.ones(2, 2)) and not torch.equal(with_gradient, torch.ones(2, 2))


def test_state_is_taken_up_again() -> None:
    def steps(optimizer: Muon, weight: nn.Parameter, gradients: list[torch.Tensor]) -> None:
        for gradient in gradients:
            weight.grad = gradient.clone()
            optimizer.step()

    torch.manual_seed(0)
    gradients = [torch.randn(3, 3) for _ in range(4)]
    one, two = nn.Parameter(torch.zeros(3, 3)), nn.Parameter(torch.zeros(3, 3))
    first, second = (Muon([{"params": [each], "muon": True}], lr=0.1) for each in (one, two))
    steps(first, one, gradients)
    steps(second, two, gradients[:2])
    third = Muon([{"params": [two], "muon": True}], lr=0.1)
    third.load_state_dict(second.state_dict())
    steps(third, two, gradients[2:])
    assert torch.equal(one, two)


def test_a_closure_is_called_with_gradients_on() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    optimizer = Muon([{"params": [weight], "muon": True}], lr=0.1)

    def closure() -> float:
        loss = weight.sum()
        loss.backward()
        return float(loss.detach())

    assert optimizer.step(closure) == 4.0
    assert not torch.equal(weight, torch.ones(2, 2))
