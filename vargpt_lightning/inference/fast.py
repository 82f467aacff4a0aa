"""Faster answers and drawings at a small loss of accuracy: matrix products of the blocks in 16 or 8 bits.

Normalisations, attention, modulations, embeddings and heads stay as they are. Which form is taken, a tiny measurement
of each says on the machine at hand: bfloat16 wins where the processor multiplies it (AMX, AVX512-BF16, GPUs), int8 with
weights scaled by row and inputs scaled as they come where it has VNNI; where neither wins, nothing changes.

Legend: N rows out, C columns in.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vargpt_lightning.models.decoder.int8 import Int8Linear, products
from vargpt_lightning.models.vargpt import VARGPTModel

Form = Literal["float32", "bfloat16", "int8"]
MEASURED = (128, 512, 1024)  # rows, columns in, rows out of the products that are timed
GAIN = 1.2  # how much faster a form has to be than float32


class BFloat16Linear(nn.Module):
    """A linear layer that multiplies in bfloat16 and gives its input's type back."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.weight = nn.Parameter(layer.weight.detach().bfloat16(), requires_grad=False)
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().bfloat16(), requires_grad=False)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        given = self.bias if bias is None else bias.bfloat16()
        return nn.functional.linear(x.bfloat16(), self.weight, given).to(x.dtype)


FORMS: dict[Form, Callable[[nn.Linear], nn.Module]] = {"bfloat16": BFloat16Linear, "int8": Int8Linear}


def speed_up(model: VARGPTModel, form: Form | None = None) -> Form:
    """Compute the products of a model's blocks in another form from now on, in place; for use without gradients.

    Args:
        form: the form; None measures which is fastest on the model's device.

    Returns:
        the form that is taken.
    """
    device = model.language_model.lm_head.weight.device
    chosen = fastest(device) if form is None else form
    if chosen != "float32":
        speed_up_blocks((*model.language_model.blocks, *model.visual_decoder.layers()), chosen)
    return chosen


def speed_up_blocks(blocks: Iterable[nn.Module], form: Form) -> None:
    """Compute the products of blocks in another form than float32 from now on, in place."""
    for parent, name, layer in [place for block in blocks for place in products(block)]:
        setattr(parent, name, FORMS[form](layer).to(layer.weight.device))


def compile_drawing(model: VARGPTModel, backend: str = "inductor") -> None:
    """Compile what draws, in place: the visual decoder's blocks, a graph for each scale, and the picture decoder.

    The first drawing of each batch size waits for the compiler. The language model stays as it is: its sequences have
    another length at every token.
    """
    settings: dict[str, Any] = {"backend": backend, "dynamic": False}
    if backend == "inductor":
        settings["mode"] = "max-autotune-no-cudagraphs"  # graphs would replay the writes into a cache of their own
    # each scale of each size and batch size is a graph; torch gives up after eight
    graphs = 16 * sum(schedule.num_scales for schedule in model.schedules)
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, graphs)
    for block in model.visual_decoder.layers():
        block.compile(**settings)
    model.image_tokenizer.decoder.compile(**settings)


@torch.no_grad()
def fastest(device: torch.device) -> Form:
    """Return the form whose products take the least time on a device, float32 unless another wins clearly."""
    rows, width, out = MEASURED
    layer, x = nn.Linear(width, out, device=device), torch.randn(rows, width, device=device)
    nn.init.normal_(layer.weight)  # some switch torch's own first weights off, and numbers that are none are refused
    nn.init.zeros_(layer.bias)
    best: Form = "float32"
    least = _seconds(layer, x) / GAIN
    for form, kind in FORMS.items():
        if form == "int8" and device.type != "cpu":
            continue
        try:
            seconds = _seconds(kind(layer), x)
        except (RuntimeError, AttributeError):  # a build of torch without these kernels
            continue
        if seconds < least:
            best, least = form, seconds
    return best


def _seconds(layer: nn.Module, x: Tensor, times: int = 5) -> float:
    """The least that a product has taken, in seconds."""
    found = []
    for _ in range(times + 2):
        began = time.perf_counter()
        layer(x)
        if x.is_cuda:
            torch.cuda.synchronize(x.device)
        found.append(time.perf_counter() - began)
    return min(found[2:])
