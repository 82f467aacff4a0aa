"""Self-attention over the scales of a picture with queries and keys of unit length, turned by their places.

Shapes: B pictures, L tokens of all scales (l of one, with a cache), C width, H heads, E width of a head, P = E / 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vargpt_lightning.models.bitwise.rotary import rotate
from vargpt_lightning.models.bitwise.text import KeysValues
from vargpt_lightning.models.decoder.attention import MAX_LOG_SCALE, LayerCache, block_causal_attention
from vargpt_lightning.models.decoder.lean import Modulated, QueryKeyValue, unit_length


class Places(NamedTuple):
    """Where tokens lie in the picture: their slices, their rotary table, and without a cache who sees whom."""

    slices: tuple[slice, ...]
    table_2lP: Tensor
    mask_LL: Tensor | None


@dataclass
class BlockCache(LayerCache):
    """One block's keys and values of all L tokens, allocated once, those of the prompt, and its modulation."""

    text: KeysValues | None = None

    def of(self, rows: slice | Sequence[int]) -> BlockCache:
        """Return the cache of some rows: for a slice a view of this one, otherwise a copy."""
        modulation_B16C = None if self.modulation_B16C is None else self.modulation_B16C[rows]
        text = None if self.text is None else self.text.of(rows)
        return BlockCache(self.keys_BHLD[rows], self.values_BHLD[rows], modulation_B16C, text)


class RotarySelfAttention(nn.Module):
    """Multi-head self-attention with cosine scores: each head learns its temperature, at most 100.

    Queries and keys get unit length, queries their head's factor, and then both are turned (Infinity's order). Biases
    are on queries and values, none on keys.
    """

    def __init__(self, width: int, heads: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.scale_mul_1H11 = nn.Parameter(torch.full((1, heads, 1, 1), math.log(4.0)))
        self.mat_qkv = QueryKeyValue(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)
        self.proj_drop = nn.Dropout(dropout)

    def forward(self, modulated: Modulated, places: Places, cache: LayerCache | None = None) -> Tensor:
        """Attends within the slices: all scales, by their mask, or the one scale that joins the cache."""
        bias = torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))
        qkv_BL3HE = modulated.through(self.mat_qkv, bias).unflatten(-1, (3, self.heads, -1))
        q_BHLE, k_BHLE, v_BHLE = qkv_BL3HE.permute(2, 0, 3, 1, 4)
        sharpness = self.scale_mul_1H11.clamp_max(MAX_LOG_SCALE).exp()
        q_BHLE = rotate(unit_length(q_BHLE.float(), sharpness), places.table_2lP).to(v_BHLE.dtype)
        k_BHLE = rotate(unit_length(k_BHLE.float()), places.table_2lP).to(v_BHLE.dtype)
        if cache is None:
            assert places.mask_LL is not None
            last = places.slices[-1].start
            y_BHLE = block_causal_attention(q_BHLE, k_BHLE, v_BHLE, places.mask_LL, last, scale=1.0)
        else:
            k_BHLE, v_BHLE = cache.extend(places.slices[0], k_BHLE, v_BHLE)
            y_BHLE = F.scaled_dot_product_attention(q_BHLE.to(k_BHLE.dtype), k_BHLE, v_BHLE, scale=1.0)
        return self.proj_drop(self.proj(y_BHLE.transpose(1, 2).flatten(2).to(modulated.x_BLC.dtype)))
