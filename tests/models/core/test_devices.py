from __future__ import annotations

import pytest
import torch

from vargpt_lightning.models.core.devices import choose
from vargpt_lightning.utils.errors import UserError


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch):
    """Let torch see so many GPUs."""

    def put(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)

    return put


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:7", "mps", "xpu", "cpu:1"])
def test_a_device_that_the_machine_has_not_is_named(name: str, gpus) -> None:
    gpus(0)
    with pytest.raises(UserError, match=f"'{name}'.*expected cpu"):
        choose(name)


@pytest.mark.parametrize(
    "name", ["abacus", "gpu", "0", "cuda:", "cuda:x", "cuda:-1", "CUDA", "", "meta:0", "cuda:99999"]
)
def test_a_name_that_is_no_device_is_refused(name: str, gpus) -> None:
    gpus(2)
    with pytest.raises(UserError, match="expected cpu, cuda"):
        choose(name)


def test_the_number_is_held_against_those_that_there_are(gpus) -> None:
    gpus(2)
    assert [str(choose(name)) for name in ("cuda", "cuda:1", "cpu", torch.device("cuda:0"))] == [
        *("cuda", "cuda:1", "cpu", "cuda:0")
    ]
    with pytest.raises(UserError, match="'cuda:2': this machine has 2"):
        choose("cuda:2")


def test_without_a_name_a_gpu_is_taken_where_there_is_one(gpus) -> None:
    gpus(0)
    assert choose().type == "cpu"
    gpus(1)
    assert choose().type == "cuda"
