"""The loss of a large vocabulary in chunks is that of all logits at once, in values, gradients and what it may hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.models.cases import IDS, make_batch, small_model
from tests.rounding import assert_same_but_rounding
from vargpt_lightning.distributed.fsdp2 import shard
from vargpt_lightning.models.core import head_loss
from vargpt_lightning.models.core.losses import text_loss
from vargpt_lightning.recipe.sharding import ShardingConfig

BATCH, LENGTH, WIDTH, VOCABULARY = 3, 41, 8, 503
ROWS = [[IDS.bos, *range(5, 35), IDS.eos], [IDS.bos, *range(40, 52), IDS.eos]]


@pytest.fixture
def in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every text loss is computed in chunks."""
    monkeypatch.setattr(head_loss, "LOGITS", 0)


def case(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, nn.Linear]:
    """Hidden states, labels of which a third is not trained, and a head with logits of a trained size."""
    generator = torch.Generator().manual_seed(0)
    hidden_BTC = torch.randn(BATCH, LENGTH, WIDTH, generator=generator)
    labels_BT = torch.randint(VOCABULARY, (BATCH, LENGTH), generator=generator)
    labels_BT[torch.rand(BATCH, LENGTH, generator=generator) < 0.33] = -100
    head = nn.Linear(WIDTH, VOCABULARY, bias=False, dtype=dtype)
    with torch.no_grad():
        head.weight.copy_(torch.randn(VOCABULARY, WIDTH, generator=generator))
    return hidden_BTC.to(dtype), labels_BT, head


def plain(hidden_BTC: Tensor, labels_BT: Tensor, head: nn.Linear) -> Tensor:
    return F.cross_entropy(head(hidden_BTC[:, :-1]).flatten(0, 1), labels_BT[:, 1:].flatten())


def relative(found: Tensor | None, wanted: Tensor | None) -> float:
    assert found is not None and wanted is not None
    return float((found.detach().double() - wanted.detach()).norm() / wanted.detach().norm())


@pytest.mark.parametrize(("hidden", "head"), [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.usefixtures("in_chunks")
def test_loss_and_gradients_are_those_of_all_logits_at_once(hidden: bool, head: bool) -> None:
    wanted_BTC, labels_BT, exact = case(torch.float64)
    found_BTC, _, ours = case()
    for states_BTC, layer in ((wanted_BTC, exact), (found_BTC, ours)):
        states_BTC.requires_grad_(hidden)
        layer.requires_grad_(head)
    wanted, found = plain(wanted_BTC, labels_BT, exact), text_loss(found_BTC, labels_BT, ours)
    assert found.loss is not None and relative(found.loss, wanted) < 1e-6
    trained_BT = labels_BT[:, 1:] != -100
    right = (exact(wanted_BTC[:, :-1]).argmax(-1) == labels_BT[:, 1:])[trained_BT].sum()
    assert (int(found.tokens), int(found.correct)) == (int(trained_BT.sum()), int(right))
    assert found.loss.requires_grad == (hidden or head)
    if found.loss.requires_grad:
        (0.7 * wanted).backward()
        (0.7 * found.loss).backward()
    for ask, one, other in ((hidden, found_BTC, wanted_BTC), (head, ours.weight, exact.weight)):
        assert (one.grad is None) == (not ask)
        assert not ask or relative(one.grad, other.grad) < 1e-6


def test_few_logits_and_half_precision_are_computed_at_once() -> None:
    assert not head_loss.chunked(2000, 32_000, torch.float32)
    assert head_loss.chunked(3000, 32_000, torch.float32) and head_loss.chunked(3000, 32_000, torch.bfloat16)
    assert not head_loss.chunked(3000, 32_000, torch.float16), "gradients would be rounded before they are scaled"
    hidden_MC = torch.zeros(3000, WIDTH)
    assert head_loss.by_chunks(nn.Linear(WIDTH, 32_000, bias=False), hidden_MC)
    assert not head_loss.by_chunks(nn.Linear(WIDTH, 32_000), hidden_MC)
    assert not head_loss.by_chunks(nn.Sequential(nn.Linear(WIDTH, 32_000, bias=False)), hidden_MC)


class Largest(TorchDispatchMode):
    """Notes the most elements of a result."""

    elements = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = operation(*args, **(kwargs or {}))
        self.elements = max([self.elements, *(each.numel() for each in tree_leaves(out) if isinstance(each, Tensor))])
        return out


@pytest.mark.usefixtures("in_chunks")
def test_no_more_than_a_chunk_of_logits_is_ever_held() -> None:
    hidden_BTC, labels_BT, head = case()
    count = int((labels_BT[:, 1:] != -100).sum())
    with Largest() as largest:
        found = text_loss(hidden_BTC.requires_grad_(), labels_BT, head)
        assert found.loss is not None
        found.loss.backward()
    assert largest.elements == -(-count // head_loss.CHUNKS) * VOCABULARY


@pytest.mark.usefixtures("in_chunks")
def test_gradients_are_given_away_once() -> None:
    hidden_BTC, labels_BT, head = case()
    loss = text_loss(hidden_BTC, labels_BT, head).loss
    assert loss is not None
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="given away once"):
        loss.backward()


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.usefixtures("in_chunks")
def test_bfloat16_is_as_near_as_with_all_logits_at_once(whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By autocast, and with all weights cast."""
    wanted_BTC, labels_BT, exact = case(torch.float64)
    plain(wanted_BTC, labels_BT, exact).backward()
    kind = torch.bfloat16 if whole else torch.float32
    apart = []
    for logits in (0, 2**26):
        monkeypatch.setattr(head_loss, "LOGITS", logits)
        hidden_BTC, _, head = case(kind)
        with torch.autocast("cpu", torch.bfloat16, enabled=not whole):
            loss = text_loss(hidden_BTC, labels_BT, head).loss
        assert loss is not None and loss.dtype is torch.float32
        loss.backward()
        assert head.weight.grad is not None and head.weight.grad.dtype is kind
        apart.append(relative(head.weight.grad, exact.weight.grad))
    assert apart[0] < 1.2 * apart[1] < 0.1


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_a_models_gradients_with_tied_and_with_sharded_tables(
    tied: bool, sharded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = small_model().config.language
    found = []
    dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
    try:
        for logits in (2**26, 0):
            monkeypatch.setattr(head_loss, "LOGITS", logits)
            model = small_model(language=replace(usual, tie_embeddings=tied))
            model.image_tokenizer.requires_grad_(False)
            if sharded and not logits:
                shard(model, init_device_mesh("cpu", (1,)), ShardingConfig())
            loss = model(make_batch(ROWS)).text_loss
            loss.backward()
            grads = {name: each.grad for name, each in model.language_model.named_parameters()}
            full = {name: getattr(each, "full_tensor", lambda each=each: each)() for name, each in grads.items()}
            found.append((loss.detach(), full))
    finally:
        dist.destroy_process_group()
    (loss, wanted), (chunked, grads) = found
    assert_same_but_rounding(chunked, loss)
    assert grads.keys() == wanted.keys() and ("lm_head.weight" in grads) != tied
    for name, value in wanted.items():
        assert relative(grads[name], value.double()) < 3e-6, name
