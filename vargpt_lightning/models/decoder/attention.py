"""Self-attention over the scales of a picture: each token sees its own scale and all scales before it.

Shapes: B batch, L visual tokens of all scales (or of one scale, with a cache), C width, H heads, D head dimension.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vargpt_lightning.models.decoder.lean import Modulated, QueryKeyValue, lean, packed_attention, unit_length
from vargpt_lightning.models.parts.base import Branch, Kept

MAX_LOG_SCALE = math.log(100)


@dataclass
class LayerCache:
    """One layer's keys and values for all L tokens, allocated once, and its modulation, constant over the scales."""

    keys_BHLD: Tensor
    values_BHLD: Tensor
    modulation_B16C: Tensor | None = None

    def extend(self, span: slice, k_BHLD: Tensor, v_BHLD: Tensor) -> tuple[Tensor, Tensor]:
        """Writes one scale's keys and values in place and returns views of all up to its end."""
        self.keys_BHLD[:, :, span] = k_BHLD
        self.values_BHLD[:, :, span] = v_BHLD
        return self.keys_BHLD[:, :, : span.stop], self.values_BHLD[:, :, : span.stop]

    def of(self, rows: slice | Sequence[int]) -> LayerCache:
        """Return the cache of some rows: for a slice a view of this one, otherwise a copy."""
        modulation_B16C = None if self.modulation_B16C is None else self.modulation_B16C[rows]
        return LayerCache(self.keys_BHLD[rows], self.values_BHLD[rows], modulation_B16C)

    def attended(self, q_BHLD: Tensor) -> None:
        """Learn that these queries have attended to what is cached."""

    def kept(self, branch: Branch, x_BLC: Tensor) -> Kept | None:
        """Return the tokens that a branch is computed for, None for all."""
        return None

    def restored(self, branch: Branch, y_BLC: Tensor) -> None:
        """Learn what a branch gave for all tokens."""


def block_causal_attention(
    q_BHLD: Tensor,
    k_BHLD: Tensor,
    v_BHLD: Tensor,
    mask_LL: Tensor,
    last: int,
    *,
    scale: float,
    dropout: float = 0.0,
    split: bool | None = None,
) -> Tensor:
    """Attends by a block-causal mask.

    Args:
        q_BHLD: queries of all scales.
        k_BHLD: keys.
        v_BHLD: values.
        mask_LL: True where a token may attend.
        last: the token at which the last scale begins.
        scale: factor on the scores.
        dropout: on the attention weights.
        split: attend from the last scale, which sees everything, in a call of its own without a mask, so that its keys
            cost the other scales nothing. By default on CPU, where it beats the mask and one call per scale.
    """
    attend = partial(F.scaled_dot_product_attention, dropout_p=dropout, scale=scale)
    if last == 0:
        return attend(q_BHLD, k_BHLD, v_BHLD)
    if not (q_BHLD.device.type == "cpu" if split is None else split):
        return attend(q_BHLD, k_BHLD, v_BHLD, attn_mask=mask_LL)
    before = slice(0, last)
    before_BHLD = attend(q_BHLD[:, :, before], k_BHLD[:, :, before], v_BHLD[:, :, before], mask_LL[before, before])
    return torch.cat((before_BHLD, attend(q_BHLD[:, :, last:], k_BHLD, v_BHLD)), dim=2)


class ScaleSelfAttention(nn.Module):
    """Multi-head self-attention with a bias on queries and values, none on keys, as VAR has it.

    With `qk_norm`, queries and keys have unit length and each head learns its temperature, at most 100 (VAR, appendix);
    without, scores are scaled by 0.25 / sqrt(D).
    """

    def __init__(self, width: int, heads: int, *, qk_norm: bool, dropout: float, attention_dropout: float) -> None:
        super().__init__()
        self.heads, self.qk_norm, self.attention_dropout = heads, qk_norm, attention_dropout
        self.scale = 1.0 if qk_norm else 0.25 / math.sqrt(width // heads)
        if qk_norm:
            self.scale_mul_1H11 = nn.Parameter(torch.full((1, heads, 1, 1), math.log(4.0)))
        self.mat_qkv = QueryKeyValue(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)
        self.proj_drop = nn.Dropout(dropout)

    def forward(
        self,
        modulated: Modulated,
        slices: tuple[slice, ...],
        mask_LL: Tensor | None = None,
        cache: LayerCache | None = None,
    ) -> Tensor:
        """Attends within `slices`: all scales, by their mask, or the one scale that joins the cache."""
        bias = torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))
        qkv_BL3HD = modulated.through(self.mat_qkv, bias).unflatten(-1, (3, self.heads, -1))
        sharpness = self.scale_mul_1H11.clamp_max(MAX_LOG_SCALE).exp() if self.qk_norm else None
        dropout = self.attention_dropout if self.training else 0.0
        if cache is None and dropout == 0 and lean(qkv_BL3HD):
            assert mask_LL is not None
            y_BLHD = packed_attention(qkv_BL3HD, sharpness, self.scale, slices, mask_LL)
            return self.proj_drop(self.proj(y_BLHD.flatten(2)))
        q_BHLD, k_BHLD, v_BHLD = qkv_BL3HD.permute(2, 0, 3, 1, 4)
        if sharpness is not None:
            # Under autocast the product is float32 while the values are not; attention wants one type.
            q_BHLD = unit_length(q_BHLD, sharpness).to(v_BHLD.dtype)
            k_BHLD = unit_length(k_BHLD).to(v_BHLD.dtype)
        if cache is None:
            assert mask_LL is not None
            y_BHLD = block_causal_attention(
                q_BHLD, k_BHLD, v_BHLD, mask_LL, slices[-1].start, scale=self.scale, dropout=dropout
            )
        else:
            k_BHLD, v_BHLD = cache.extend(slices[0], k_BHLD, v_BHLD)
            y_BHLD = F.scaled_dot_product_attention(
                q_BHLD.to(k_BHLD.dtype), k_BHLD, v_BHLD, dropout_p=dropout, scale=self.scale
            )
            cache.attended(q_BHLD)
        return self.proj_drop(self.proj(y_BHLD.transpose(1, 2).flatten(2).to(modulated.x_BLC.dtype)))
