"""Operations that keep less for the backward pass: equal values and gradients to the plain ones'."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vargpt_lightning.models.core.scales import ScaleSchedule
from vargpt_lightning.models.decoder import attention
from vargpt_lightning.models.decoder import lean as lean_operations
from vargpt_lightning.models.decoder.attention import block_causal_attention
from vargpt_lightning.models.decoder.lean import (
    Modulated,
    QueryKeyValue,
    gelu_linear,
    lean,
    packed_attention,
    unit_length,
)
from vargpt_lightning.models.decoder.visual_decoder import VisualDecoder


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def random(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.double, requires_grad=True)


@pytest.mark.parametrize("conditions", [1, 2])
@pytest.mark.parametrize("kind", [nn.Linear, QueryKeyValue])
def test_modulated_tokens_through_a_linear_layer(conditions: int, kind: type[nn.Linear]) -> None:
    norm, linear = nn.LayerNorm(5, eps=1e-6, elementwise_affine=False), kind(5, 4).double()
    x, scale, shift = random(2, 3, 5), random(conditions, 1, 5), random(conditions, 1, 5)
    bias = [random(4)] if kind is QueryKeyValue else []

    def found(*_: Tensor) -> Tensor:
        return Modulated(x, norm, scale, shift).through(linear, *bias)

    torch.testing.assert_close(found(), linear(norm(x) * (1 + scale) + shift, *bias))
    assert torch.autograd.gradcheck(found, (x, scale, shift, linear.weight, *(bias or [linear.bias])))
    linear.requires_grad_(False)
    assert torch.autograd.gradcheck(found, (x, scale, shift, *bias))


def test_gelu_and_linear() -> None:
    linear = nn.Linear(4, 3).double()
    h = random(2, 3, 4)
    torch.testing.assert_close(gelu_linear(h, linear), linear(F.gelu(h, approximate="tanh")))
    leaves = (h, linear.weight, linear.bias)
    assert torch.autograd.gradcheck(lambda *_: gelu_linear(h, linear), leaves)
    linear.requires_grad_(False)
    assert torch.autograd.gradcheck(lambda each: gelu_linear(each, linear), h)


def test_another_kind_of_layer_is_called_as_it_is() -> None:
    class Adapted(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 1

    layer, h = Adapted(4, 3), torch.randn(2, 4)
    assert torch.equal(gelu_linear(h, layer), layer(F.gelu(h, approximate="tanh")))


@pytest.mark.parametrize("sizes", [(2,), (1, 2), (1, 2, 3), (2, 3)])
@pytest.mark.parametrize("sharpened", [True, False])
def test_packed_attention(sizes: tuple[int, ...], sharpened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lean_operations, "ALONE", 4)
    schedule = ScaleSchedule(sizes)
    last, mask_LL = schedule.slices[-1].start, schedule.block_causal_mask()
    qkv = random(2, schedule.num_tokens, 3, 2, 4)
    sharpness = torch.tensor([2.0, 3.0], dtype=torch.double).view(1, 2, 1, 1).requires_grad_() if sharpened else None

    def packed(qkv: Tensor, *sharpness: Tensor) -> Tensor:
        return packed_attention(qkv, sharpness[0] if sharpness else None, 0.7, schedule.slices, mask_LL)

    def plain(qkv: Tensor, *sharpness: Tensor) -> Tensor:
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        if sharpness:
            q, k = F.normalize(q, dim=-1) * sharpness[0], F.normalize(k, dim=-1)
        return block_causal_attention(q, k, v, mask_LL, last, scale=0.7, split=False).transpose(1, 2)

    leaves = (qkv,) if sharpness is None else (qkv, sharpness)
    found, expected = packed(*leaves), plain(*leaves)
    torch.testing.assert_close(found, expected)
    grad = torch.randn_like(expected)
    for one, two in zip(
        torch.autograd.grad(found, leaves, grad), torch.autograd.grad(expected, leaves, grad), strict=True
    ):
        torch.testing.assert_close(one, two)
    assert torch.autograd.gradcheck(packed, leaves)


def test_rows_of_zeros_have_finite_gradients() -> None:
    qkv = torch.zeros(1, 5, 3, 2, 4, requires_grad=True)
    schedule = ScaleSchedule((1, 2))
    packed_attention(
        qkv, torch.ones(1, 2, 1, 1), 1.0, schedule.slices, schedule.block_causal_mask()
    ).square().sum().backward()
    assert qkv.grad is not None and bool(qkv.grad.isfinite().all())
    torch.testing.assert_close(unit_length(torch.zeros(2, 3)), torch.zeros(2, 3))


def test_plain_operations_serve_elsewhere() -> None:
    x = torch.randn(2, requires_grad=True)
    assert lean(x)
    with torch.no_grad():
        assert not lean(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert not lean(x)
    assert not lean(torch.empty(2, device="meta"))


def test_much_less_is_kept_than_by_plain_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = VisualDecoder(scales=(1, 2, 3, 4), code_size=4, vocabulary=8, depth=3, width=64, heads=4)
    weights = {each.data_ptr() for each in decoder.parameters()}

    def kept() -> tuple[int, list[Tensor]]:
        sizes: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        torch.manual_seed(1)
        decoder.zero_grad()
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = decoder(torch.arange(8), torch.randn(8, 29, 4)).square().mean()
        loss.backward()
        return sum(sizes.values()), [each.grad for each in decoder.parameters() if each.grad is not None]

    less, gradients = kept()
    for place in (attention, lean_operations):
        monkeypatch.setattr(place, "lean", lambda _: False)
    more, expected = kept()
    assert less < 0.6 * more
    for one, two in zip(gradients, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("scales", [(1, 2), (1, 2, 4), (1, 2, 3, 4), (1, 2, 3, 4, 5)])
def test_masks_of_all_sizes_serve_in_float64(scales: tuple[int, ...]) -> None:
    schedule = ScaleSchedule(scales)
    mask_LL = schedule.block_causal_mask(torch.device("cpu"))
    qkv = random(6, schedule.num_tokens, 3, 4, 8)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    weights = (unit_length(q) @ unit_length(k).transpose(-1, -2)).masked_fill(~mask_LL, -torch.inf).softmax(-1)
    found = packed_attention(qkv, torch.ones(1, 4, 1, 1, dtype=torch.double), 1.0, schedule.slices, mask_LL)
    torch.testing.assert_close(found, (weights @ v).transpose(1, 2))
