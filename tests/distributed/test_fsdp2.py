"""Which blocks are computed again, and how much of them, without a change of what comes out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.tiny_training import tiny_model
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.distributed.fsdp2 import MATRIX_PRODUCTS, arrange_blocks, blocks
from vargpt_lightning.recipe.sharding import ShardingConfig


class Products(TorchDispatchMode):
    """Counts matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += operation in MATRIX_PRODUCTS
        return operation(*args, **(kwargs or {}))


def gradients(model: VARGPT) -> tuple[dict[str, Tensor], int, list[int]]:
    """Gradients of the text loss, the matrix products it took, and how often each block's parts were called."""
    calls = {id(block): 0 for _, block in blocks(model)}

    def count(block: nn.Module) -> Any:
        def called(*_: Any) -> None:
            calls[id(block)] += 1

        return called

    handles = [list(block.children())[1].register_forward_pre_hook(count(block)) for _, block in blocks(model)]
    ids = torch.arange(7, 47).view(2, 20)
    ids[:, :7] = torch.tensor([1, 4, *[6] * 5])
    ids[:, 7] = 5
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids).bool(), "labels": ids}
    batch |= {"drawn_indices": torch.arange(10).view(2, 5)}
    with Products() as products:
        output = model.eval()(batch)
        assert output.loss is not None
        output.loss.backward()
    for handle in handles:
        handle.remove()
    found = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
    return found, products.count, [number for number in calls.values() if number]


@pytest.mark.parametrize(("mode", "again"), [("full", (2, 2)), ("every_2", (1, 2)), ("selective", (2, 2))])
def test_blocks_are_computed_again_as_asked(mode: str, again: tuple[int, int]) -> None:
    plain, wanted, calls = gradients(tiny_model())
    assert set(calls) == {1}
    model = tiny_model()
    arrange_blocks(model, ShardingConfig(mode))
    arrange_blocks(model, ShardingConfig(mode))  # a second stage
    found, products, calls = gradients(model)
    decoder, language = calls[-2:], calls[:-2]
    assert decoder == list(again) and set(language) == {1 if mode == "every_2" else 2}
    full = tiny_model()
    arrange_blocks(full, ShardingConfig("full"))
    most = gradients(full)[1]
    assert wanted < products <= most and (products < most) == (mode != "full")
    assert found.keys() == plain.keys()
    for name, value in plain.items():
        torch.testing.assert_close(found[name], value, msg=name)


def test_the_older_setting_of_the_language_model_still_holds() -> None:
    model = tiny_model()
    model.config.language.checkpoint_activations = True
    arrange_blocks(model, ShardingConfig())
    assert [number for number in gradients(model)[2]] == [2, 1, 1]
