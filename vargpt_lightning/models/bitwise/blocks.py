"""The blocks of the bitwise decoder: self-attention and feed-forward modulated by the prompt, cross-attention between.

Shapes: B pictures, L tokens of all scales or of one, C width; 16C: six modulation vectors, the same for all tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vargpt_lightning.models.bitwise.attention import BlockCache, Places, RotarySelfAttention
from vargpt_lightning.models.bitwise.text import CrossAttention, TextRows
from vargpt_lightning.models.decoder.blocks import DropPath, FeedForward
from vargpt_lightning.models.decoder.lean import Modulated, gated_residual


class Condition(NamedTuple):
    """What steers drawing: the pooled prompt (B, C), the modulation all blocks share, and the rows that they read."""

    pooled_BC: Tensor
    shared_B16C: Tensor
    text: TextRows

    def of(self, rows: slice | Sequence[int]) -> Condition:
        """Return the condition of some rows."""
        return Condition(self.pooled_BC[rows], self.shared_B16C[rows], self.text.of_rows(rows))


class BitwiseBlock(nn.Module):
    """Self-attention, cross-attention over the prompt, feed-forward; the first and last with shared AdaLN."""

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        *,
        dropout: float,
        drop_path: float,
        norm_eps: float,
        rounded: bool,
    ) -> None:
        super().__init__()
        self.drop_path = DropPath(drop_path)
        self.sa = RotarySelfAttention(width, heads, dropout=dropout)
        self.ca = CrossAttention(width, heads, dropout=dropout, rounded=rounded)
        self.ffn = FeedForward(width, hidden, dropout)
        self.ln_wo_grad = nn.LayerNorm(width, eps=norm_eps, elementwise_affine=False)
        self.ca_norm = nn.LayerNorm(width, eps=norm_eps)
        self.ada_gss = nn.Parameter(torch.empty(1, 1, 6, width))

    def forward(self, x_BLC: Tensor, cond: Condition, places: Places, cache: BlockCache | None = None) -> Tensor:
        """Transforms the tokens of some places: with a cache those of one scale, and scale 0 renews what it keeps."""
        if cache is None:
            rows_B16C, text = self.ada_gss + cond.shared_B16C, self.ca.keys_values(cond.text)
        else:
            if places.slices[0].start == 0 or cache.modulation_B16C is None or cache.text is None:
                cache.modulation_B16C, cache.text = self.ada_gss + cond.shared_B16C, self.ca.keys_values(cond.text)
            rows_B16C, text = cache.modulation_B16C, cache.text
        gate1, gate2, scale1, scale2, shift1, shift2 = rows_B16C.unbind(2)
        y_BLC = self.sa(Modulated(x_BLC, self.ln_wo_grad, scale1, shift1), places, cache)
        x_BLC = gated_residual(x_BLC, y_BLC, gate1, self.drop_path)
        x_BLC = x_BLC + self.ca(self.ca_norm(x_BLC), text)
        y_BLC = self.ffn(Modulated(x_BLC, self.ln_wo_grad, scale2, shift2))
        return gated_residual(x_BLC, y_BLC, gate2, self.drop_path)


class BlockChunk(nn.Module):
    """Some blocks one after the other, under the names of the released checkpoints."""

    def __init__(self, blocks: list[BitwiseBlock]) -> None:
        super().__init__()
        self.module = nn.ModuleList(blocks)
