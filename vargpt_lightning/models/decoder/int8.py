"""Products with weights of 8 bits, scaled by row, and decoders whose blocks have them.

Legend: N rows out, C columns in.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from vargpt_lightning.models.decoder.attention import QueryKeyValue
from vargpt_lightning.models.decoder.picture_decoder import PictureDecoder


class Int8Linear(nn.Module):
    """A linear layer on the CPU with int8 weights, scaled by row, and inputs that are quantized as they come."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        weight_NC, scales_N = layer.weight.detach().float(), row_scales(layer.weight)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a dtype that torchao is to replace one day
            quantized = torch.quantize_per_channel(
                weight_NC, scales_N, torch.zeros_like(scales_N, dtype=torch.long), 0, torch.qint8
            )
        bias = None if layer.bias is None else layer.bias.detach().float()
        self.packed: Any = torch.ops.quantized.linear_prepack(quantized, bias)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        # seven bits of the input: processors without VNNI sum pairs of products in 16 bits, and that saturates
        y: Tensor = torch.ops.quantized.linear_dynamic(x.float(), self.packed, True)
        return (y if bias is None else y + bias).to(x.dtype)


class Int8WeightLinear(nn.Module):
    """A linear layer with int8 weights, scaled by row, which multiplies in its input's type."""

    weight_NC: Tensor
    scales_N1: Tensor

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        scales_N1 = row_scales(layer.weight)[:, None]
        self.register_buffer("weight_NC", (layer.weight.detach().float() / scales_N1).round().to(torch.int8))
        self.register_buffer("scales_N1", scales_N1)
        self.bias = layer.bias

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        weight_NC = self.weight_NC.to(x.dtype) * self.scales_N1.to(x.dtype)
        given = self.bias if bias is None else bias
        return nn.functional.linear(x, weight_NC, None if given is None else given.to(x.dtype))


def row_scales(weight_NC: Tensor) -> Tensor:
    """Return what each row is divided by so that its largest number is 127."""
    return weight_NC.detach().float().abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / 127


def products(block: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    """Yield a block's layers that multiply many tokens by a matrix: parent, name, layer."""
    for place, parent in block.named_modules():
        for name, child in parent.named_children():
            # other classes do more than a product, and a modulation is computed once a drawing
            if type(child) in (nn.Linear, QueryKeyValue) and "ada_lin" not in place:
                yield parent, name, child


def int8_copy(decoder: PictureDecoder, blocks: int) -> PictureDecoder:
    """Return a decoder that shares all weights with another but those of its first blocks' products, in 8 bits.

    It is kept as long as the other one is, and made anew where weights have changed.
    """
    versions = sum(each._version for each in decoder.parameters())
    made, of = _COPIES.setdefault(decoder, {}).get(blocks, (None, -1))
    if made is None or of != versions:
        memo: dict[int, Any] = {id(each): each for each in (*decoder.parameters(), *decoder.buffers())}
        made = copy.deepcopy(decoder, memo)
        for block in made.layers()[:blocks]:
            for parent, name, layer in list(products(block)):
                form = Int8Linear if layer.weight.device.type == "cpu" else Int8WeightLinear
                setattr(parent, name, form(layer))
        _COPIES[decoder][blocks] = (made, versions)
    return made


_COPIES: WeakKeyDictionary[PictureDecoder, dict[int, tuple[PictureDecoder, int]]] = WeakKeyDictionary()
