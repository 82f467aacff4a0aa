"""Modules made on the meta device that get the numbers which they would have had."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vargpt_lightning.checkpoints.meta_init import RecordedInit


class Mixed(nn.Module):
    """What initialisation may do to tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 40)
        self.drawn = nn.Parameter(torch.randn(7))
        self.second = nn.Linear(40, 3)
        nn.init.trunc_normal_(self.first.weight, std=0.7)  # what it drew before is lost
        nn.init.normal_(self.second.weight)
        with torch.no_grad():
            rows = self.second.weight.view(2, -1)
            rows[1:] *= 0.5
            self.first.weight.t().div_(3)
            self.second.bias[1:].uniform_()
        self.copied = nn.Parameter(self.drawn.detach().clone())
        self.forgotten = nn.Parameter(torch.empty(2))


def play(made: RecordedInit, *tensors: Tensor) -> list[Tensor]:
    found: dict[int, Tensor] = {}
    made.play({made.storage_of(each): lambda value, at=i: found.update({at: value}) for i, each in enumerate(tensors)})
    return [found[place] for place in range(len(tensors))]


def test_each_tensor_is_what_it_would_have_been_whichever_are_asked_for() -> None:
    torch.manual_seed(3)
    whole = Mixed()
    state = torch.get_rng_state()
    with RecordedInit(3) as made:
        model = Mixed()
    assert all(each.is_meta for each in model.parameters())
    names = ["first.weight", "first.bias", "drawn", "second.weight", "second.bias"]
    every = play(made, *(model.get_parameter(name) for name in names))
    alone = [play(made, model.get_parameter(name))[0] for name in names]
    for name, one, two in zip(names, every, alone, strict=True):
        assert torch.equal(one, whole.get_parameter(name)) and torch.equal(two, one), name
    assert torch.equal(torch.get_rng_state(), state), "the stream of others is left alone"
    assert nn.init.trunc_normal_(torch.empty(3)).shape == (3,) and not torch.empty(1).is_meta


def test_what_cannot_be_made_by_itself_is_refused() -> None:
    with RecordedInit(3) as made:
        model = Mixed()
    with pytest.raises(RuntimeError, match="depends on others"):
        play(made, model.copied)
    with pytest.raises(RuntimeError, match="left as it was found in memory"):
        play(made, model.forgotten)
