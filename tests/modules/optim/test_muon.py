"""Muon's step for matrices, AdamW's for the rest."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vargpt_lightning.modules.optim import muon
from vargpt_lightning.modules.optim.muon import Muon
from vargpt_lightning.modules.optim.newton_schulz import COEFFICIENTS, orthogonalize


def newton_schulz(x: torch.Tensor) -> torch.Tensor:
    """Five iterations as they are written down (Jordan et al., 2024)."""
    a, b, c = COEFFICIENTS
    if x.shape[0] > x.shape[1]:
        return newton_schulz(x.T).T
    x = x / x.norm()
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


@pytest.mark.parametrize("shape", [(24, 96), (96, 24), (32, 32), (24, 40)])
@pytest.mark.parametrize("smallest", [0, -2, -5, -8])
def test_rounding_is_that_of_the_iterations_as_written(shape: tuple[int, int], smallest: int) -> None:
    torch.manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(shape, dtype=torch.double), full_matrices=False)
    matrix = u @ torch.logspace(0, smallest, min(shape), dtype=torch.double).diag() @ v
    exact = newton_schulz(matrix)
    torch.testing.assert_close(orthogonalize(matrix), exact, atol=1e-7, rtol=1e-6)  # the 1e-7 beside the norm

    def error(found: torch.Tensor) -> float:
        return float((found.double() - exact).norm() / exact.norm())

    assert error(orthogonalize(matrix.float())) < 4 * error(newton_schulz(matrix.float())) + 1e-6


def test_matrices_of_one_shape_move_together_as_they_do_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def moved(stacked: int) -> list[torch.Tensor]:
        monkeypatch.setattr(muon, "STACKED", stacked)
        torch.manual_seed(0)
        weights = [nn.Parameter(torch.randn(shape)) for shape in [(4, 12), (3, 5), (4, 12), (4, 3, 2, 2), (3, 5)]]
        optimizer = Muon([{"params": weights, "muon": True, "weight_decay": 0.1}], lr=0.1)
        for _ in range(2):
            for weight in weights:
                weight.grad = torch.randn_like(weight)
            optimizer.step()
        return [weight.detach() for weight in weights]

    for together, by_two, alone in zip(moved(10**6), moved(100), moved(0), strict=True):
        torch.testing.assert_close(together, alone)
        torch.testing.assert_close(by_two, alone)


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
