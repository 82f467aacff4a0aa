"""A drawing waits for no number: on a GPU each one would stop the queue of kernels."""

from __future__ import annotations

import traceback
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.models.cases import small_model
from vargpt_lightning.models.decoder.sampling import SamplingSettings
from vargpt_lightning.models.generation.drawing import draw_pictures, draw_rows
from vargpt_lightning.models.language.kv_cache import LanguageCache

WAITS = ("_local_scalar_dense", "nonzero", "_unique", "is_nonzero", "equal", "masked_select")


class Waiting(TorchDispatchMode):
    """Notes where a number is taken out of a tensor (`int`, `item`, `if`), or a shape depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        chooses = func is torch.ops.aten.index.Tensor and any(i is not None and i.dtype == torch.bool for i in args[1])
        if chooses or func.overloadpacket._qualified_op_name.split("::")[-1] in WAITS:
            self.places.append(place())
        return func(*args, **(kwargs or {}))


class Listing(TorchFunctionMode):
    """Notes where a tensor becomes a list or an array, which no operation tells."""

    def __init__(self, places: list[str]) -> None:
        super().__init__()
        self.places = places

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.cpu):
            self.places.append(place())
        return func(*args, **(kwargs or {}))


def place() -> str:
    frames = [frame for frame in traceback.extract_stack() if "/vargpt_lightning/" in frame.filename]
    return "\n".join(f"{frame.filename}:{frame.lineno}: {frame.line}" for frame in frames[-2:])


@pytest.mark.parametrize("unconditional", ["dropped_prompt", "noise"])
@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize("each", [True, False])
def test_no_scale_waits_for_a_number(unconditional: Any, guided: bool, each: bool) -> None:
    model = small_model(unconditional=unconditional)
    cache = LanguageCache(model.language_model, 3, 64)
    one = SamplingSettings(cfg=1.5 if guided else 0.0)
    streams = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    with Waiting() as waiting, Listing(waiting.places):
        if each:
            draw_rows(model, cache, [0, 2], [3, 1], [one, one], streams)
        else:
            draw_pictures(model, cache, [0, 2], [3, 1], one)
    assert waiting.places == []


def test_what_waits_is_noticed() -> None:
    x = torch.tensor([1, 2])
    with Waiting() as waiting, Listing(waiting.places):
        int(x.max()), x.tolist(), bool(x[0] > 0), x[x > 1]
    assert len(waiting.places) == 4
