"""The language model's keys and values: allocated once, written in place, each row with its own length.

Legend: R rows of a step, B rows of the cache, n new tokens of a row, S slots, H key heads, D head dimension, C width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from vargpt_lightning.models.core.masks import kernel_mask
from vargpt_lightning.models.language.llama import LanguageModel

Kept = Literal["hidden", "inputs"]


class LanguageCache:
    """Keys and values of every layer for `rows` sequences of up to `capacity` tokens.

    Slot i of a row holds its token i, so rows of different lengths need neither padding nor shifted positions: a step
    names the slots that it writes, and its mask the slots that it sees.

    Args:
        keeps: what else is kept of each token, for a decoder that reads it: "hidden", its last hidden state, or
            "inputs", what went in.

    Attributes:
        kept_BSC: that.
    """

    def __init__(self, model: LanguageModel, rows: int, capacity: int, keeps: Kept | None = None) -> None:
        config, weight = model.config, model.lm_head.weight
        shape = (config.layers, rows, config.kv_heads or config.heads, capacity, config.head_size)
        self.model = model
        self.rows, self.capacity = rows, capacity
        # Zeros, not empty: a masked slot has weight 0, and 0 times a stray NaN would be NaN.
        self.keys_LBHSD = torch.zeros(shape, dtype=weight.dtype, device=weight.device)
        self.values_LBHSD = torch.zeros_like(self.keys_LBHSD)
        self.keeps = keeps
        self.kept_BSC = weight.new_zeros(rows, capacity if keeps else 0, config.width)

    def regrouped(self, kept: Sequence[int], added: int, capacity: int) -> LanguageCache:
        """Return a cache of `kept` rows of this one, in their order, and of `added` empty rows behind them."""
        made = LanguageCache(self.model, len(kept) + added, capacity, self.keeps)
        length = min(self.capacity, capacity)
        for mine, theirs in ((self.keys_LBHSD, made.keys_LBHSD), (self.values_LBHSD, made.values_LBHSD)):
            for new, old in enumerate(kept):
                theirs[:, new, :, :length] = mine[:, old, :, :length]
        for new, old in enumerate(kept):
            made.kept_BSC[new, :length] = self.kept_BSC[old, :length]
        return made

    def clear(self, rows: Sequence[int]) -> None:
        """Forget what rows hold."""
        self.keys_LBHSD[:, rows] = 0
        self.values_LBHSD[:, rows] = 0

    def put(self, row: int, other: LanguageCache, theirs: int) -> None:
        """Take over a row of another cache."""
        length = min(self.capacity, other.capacity)
        for mine, given in ((self.keys_LBHSD, other.keys_LBHSD), (self.values_LBHSD, other.values_LBHSD)):
            mine[:, row, :, :length] = given[:, theirs, :, :length]
        self.kept_BSC[row, :length] = other.kept_BSC[theirs, :length]

    def run(
        self,
        embeds_RnC: Tensor,
        slots_Rn: Tensor,
        mask_R1nS: Tensor,
        *,
        rows: Sequence[int] | None = None,
        positions_Rn: Tensor | None = None,
    ) -> Tensor:
        """Run new tokens through the language model and return their last hidden states (R, n, C).

        Args:
            embeds_RnC: the tokens' input embeddings.
            slots_Rn: where their keys and values go.
            mask_R1nS: True where a token may see a slot, over the first S slots.
            rows: which rows of the cache these are; None for all of them, in order.
            positions_Rn: positions in the sequence, where they are not the slots; (3, R, n) in three dimensions.
        """
        everyone = rows is None or list(rows) == list(range(self.rows))
        rows_R = None if everyone else torch.tensor(rows, device=slots_Rn.device)
        step = _Step(self, rows_R, slots_Rn, mask_R1nS.shape[-1])
        hidden_RnC = self.model.model(
            embeds_RnC,
            kernel_mask(mask_R1nS, self.model.kernel, embeds_RnC.dtype),
            slots_Rn if positions_Rn is None else positions_Rn,
            step,
        )
        if self.keeps:
            kept_RnC = hidden_RnC if self.keeps == "hidden" else embeds_RnC
            self.kept_BSC[step.where[0], slots_Rn] = kept_RnC.to(self.kept_BSC.dtype)
        return hidden_RnC


class _Step:
    """What attention puts a step's keys and values into."""

    def __init__(self, cache: LanguageCache, rows_R: Tensor | None, slots_Rn: Tensor, total: int) -> None:
        self.cache, self.rows_R, self.slots_Rn, self.total = cache, rows_R, slots_Rn, total
        every_row = torch.arange(cache.rows, device=slots_Rn.device) if rows_R is None else rows_R
        self.where = (every_row[:, None], slice(None), slots_Rn)

    def update(self, keys_RHnD: Tensor, values_RHnD: Tensor, layer: int, **_: Any) -> tuple[Tensor, Tensor]:
        """Write the new keys and values of a layer and return all of the rows' first slots.

        What else transformers' attention gives its caches is not needed.
        """
        return (
            self._write(self.cache.keys_LBHSD[layer], keys_RHnD),
            self._write(self.cache.values_LBHSD[layer], values_RHnD),
        )

    def _write(self, store_BHSD: Tensor, new_RHnD: Tensor) -> Tensor:
        store_BHSD[self.where] = new_RHnD.transpose(1, 2).to(store_BHSD.dtype)
        seen_BHSD = store_BHSD[:, :, : self.total]
        return seen_BHSD if self.rows_R is None else seen_BHSD.index_select(0, self.rows_R)
