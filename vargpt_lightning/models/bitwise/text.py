"""Encoded prompts, and the attention that reads them: from the tokens of a picture, and pooled into one vector.

Shapes: B prompts, R text rows of all prompts, T of the longest, L visual tokens, W width of the text, C width of the
decoder, H heads, E width of a head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from vargpt_lightning.models.decoder.lean import QueryKeyValue
from vargpt_lightning.utils.errors import UserError


@dataclass(frozen=True)
class TextRows:
    """Encoded prompts: their rows (R, W), those of one prompt after those of another, and how many each has.

    Raises:
        UserError: (a ValueError) when a prompt has no rows, or the lengths are not those of the rows.
    """

    rows_RW: Tensor
    lengths: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "lengths", tuple(map(int, self.lengths)))
        if not self.lengths or min(self.lengths) < 1 or sum(self.lengths) != len(self.rows_RW):
            expected = f"one for each prompt, of 1 or more, together the {len(self.rows_RW)} rows"
            raise UserError(f"lengths: got {list(self.lengths)}, expected {expected}")

    def __len__(self) -> int:
        """B, the number of prompts."""
        return len(self.lengths)

    def prompts(self) -> tuple[Tensor, ...]:
        """Return the rows of each prompt."""
        return self.rows_RW.split(self.lengths)

    def joined(self, other: TextRows) -> TextRows:
        """Return these prompts with others behind them."""
        return TextRows(torch.cat((self.rows_RW, other.rows_RW)), self.lengths + other.lengths)

    def of_rows(self, rows: slice | Sequence[int]) -> TextRows:
        """Return some of the prompts, by their places."""
        every = self.prompts()
        return TextRows.of(every[rows] if isinstance(rows, slice) else [every[row] for row in rows])

    @classmethod
    def of(cls, prompts: Sequence[Tensor]) -> TextRows:
        """Put the rows of each prompt one after another."""
        return cls(torch.cat(tuple(prompts)), tuple(map(len, prompts)))


class KeysValues(NamedTuple):
    """Keys and values (B, H, T, E) of padded prompts, and where there is text: (B, 1, 1, T), None for everywhere."""

    keys_BHTE: Tensor
    values_BHTE: Tensor
    mask_B11T: Tensor | None

    def of(self, rows: slice | Sequence[int]) -> KeysValues:
        """Return those of some prompts."""
        mask_B11T = None if self.mask_B11T is None else self.mask_B11T[rows]
        return KeysValues(self.keys_BHTE[rows], self.values_BHTE[rows], mask_B11T)


class TextKeysValues(nn.Module):
    """What both attentions over text have: keys and values by one matrix with a bias on the values, and a way out."""

    def __init__(self, width: int, text_width: int, heads: int, *, dropout: float = 0.0, rounded: bool = False) -> None:
        super().__init__()
        self.heads, self.rounded = heads, rounded
        self.scale = 1 / math.sqrt(width // heads)
        self.mat_kv = QueryKeyValue(text_width, 2 * width, bias=False)
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)
        self.proj_drop = nn.Dropout(dropout)

    def keys_values(self, text: TextRows) -> KeysValues:
        """Return the keys and values of prompts."""
        bias = torch.cat((torch.zeros_like(self.v_bias), self.v_bias))
        rows_R2HE = self.mat_kv(text.rows_RW, bias).unflatten(-1, (2, self.heads, -1))
        if len(set(text.lengths)) == 1:
            padded_BT2HE, mask_B11T = rows_R2HE.unflatten(0, (len(text), -1)), None
        else:
            padded_BT2HE = pad_sequence(rows_R2HE.split(text.lengths), batch_first=True)
            lengths_B = torch.tensor(text.lengths, device=rows_R2HE.device)
            places_T = torch.arange(padded_BT2HE.shape[1], device=rows_R2HE.device)
            mask_B11T = (places_T < lengths_B[:, None])[:, None, None]
        keys_BHTE, values_BHTE = padded_BT2HE.permute(2, 0, 3, 1, 4)
        return KeysValues(keys_BHTE, values_BHTE, mask_B11T)

    def attend(self, q_BHLE: Tensor, text: KeysValues) -> Tensor:
        """Return what queries find, through the layer out: (B, L, C)."""
        if self.rounded and q_BHLE.dtype is torch.float32:
            y_BHLE = rounded_attention(q_BHLE, text, self.scale)
        else:
            k, v = text.keys_BHTE, text.values_BHTE
            y_BHLE = F.scaled_dot_product_attention(q_BHLE.to(v.dtype), k, v, text.mask_B11T, scale=self.scale)
        return self.proj_drop(self.proj(y_BHLE.transpose(1, 2).flatten(2)))


def rounded_attention(q_BHLE: Tensor, text: KeysValues, scale: float) -> Tensor:
    """Attention with queries, keys, values and result rounded to bfloat16, and float32 in between."""
    q, k, v = (each.bfloat16().float() for each in (q_BHLE, text.keys_BHTE, text.values_BHTE))
    # by hand: another order of sums, as kernels have it, now and then rounds to the next bfloat16
    scores_BHLT = q @ k.transpose(-1, -2) * scale
    if text.mask_B11T is not None:
        scores_BHLT = scores_BHLT.masked_fill(~text.mask_B11T, -torch.inf)
    return (scores_BHLT.softmax(-1) @ v).bfloat16().float()


class CrossAttention(TextKeysValues):
    """Attention of a picture's tokens over the rows of its prompt, the plain kind: no cosine, no rotation.

    Args:
        width: C; also of the text's rows here.
        heads: H.
        dropout: on the result.
        rounded: in float32, round queries, keys, values and result to bfloat16, as the released code does whose kernel
            knows 16 bits alone.
    """

    def __init__(self, width: int, heads: int, *, dropout: float = 0.0, rounded: bool = False) -> None:
        super().__init__(width, width, heads, dropout=dropout, rounded=rounded)
        self.mat_q = nn.Linear(width, width)

    def forward(self, x_BLC: Tensor, text: KeysValues) -> Tensor:
        """Return what the tokens find: (B, L, C)."""
        return self.attend(self.mat_q(x_BLC).unflatten(-1, (self.heads, -1)).transpose(1, 2), text)


class LearnedQuery(TextKeysValues):
    """Attention of one learned query over the rows of a prompt."""

    def __init__(self, width: int, text_width: int, heads: int, *, rounded: bool = False) -> None:
        super().__init__(width, text_width, heads, rounded=rounded)
        self.mat_q = nn.Parameter(torch.empty(1, heads, width // heads))

    def forward(self, text: TextRows) -> Tensor:
        """Return one vector for each prompt: (B, C)."""
        return self.attend(self.mat_q[:, :, None].expand(len(text), -1, -1, -1), self.keys_values(text))[:, 0]


class AttentivePool(nn.Module):
    """Pools the rows of a prompt into one vector; a head for 128 channels of the text, in the widest decoders for 64.

    Text of fewer channels has one head, where the released code ends with a division by zero.
    """

    def __init__(self, width: int, text_width: int, *, rounded: bool = False) -> None:
        super().__init__()
        heads = pool_heads(width, text_width)
        if width % heads:
            raise UserError(f"width: got {width}, expected a multiple of the {heads} heads that the text's width has")
        self.ca = LearnedQuery(width, text_width, heads, rounded=rounded)

    def forward(self, text: TextRows) -> Tensor:
        return self.ca(text)


def pool_heads(width: int, text_width: int) -> int:
    """Return how many heads the attentive pool has."""
    return max(1, text_width // (64 if width > 4096 else 128))
