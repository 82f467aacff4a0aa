"""What the decoder of drawn pictures is told of each picture besides its visual tokens: a label, a row, or a prompt.

Legend: B batch, T text+image sequence, Q drawn pictures, R rows of all prompts, W width of the language model, C of the
decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vargpt_lightning.models.bitwise.bitwise_decoder import BitwiseDecoder
from vargpt_lightning.models.bitwise.blocks import Condition
from vargpt_lightning.models.bitwise.text import TextRows
from vargpt_lightning.models.core.config import VARGPTConfig
from vargpt_lightning.models.core.masks import PictureLayout
from vargpt_lightning.models.decoder.picture_decoder import PictureDecoder

Told = Tensor | Condition
"""Labels (Q,), or what a decoder of bits makes of rows."""


def build_start_embedding(config: VARGPTConfig) -> nn.Embedding | None:
    """Return the table of which the last row is the condition of all pictures; None where settings want none.

    VARGPT-v1.1 has a row for each id up to the start token's, and reads this one alone.
    """
    if config.settings.class_row != "start_embedding":
        return None
    return nn.Embedding(config.decoder.start_rows, config.decoder.resolved_text_width)


@dataclass(frozen=True)
class PictureConditions:
    """Makes conditions of a model's pictures, as its settings say.

    Args:
        config: the model's.
        decoder: its decoder.
        start: its start embedding.
        out: what carries hidden states to the decoder's width.
    """

    config: VARGPTConfig
    decoder: PictureDecoder
    start: nn.Embedding | None
    out: nn.Module

    @property
    def reads(self) -> str:
        """What the cross-attention reads, as `Settings.cross_attention` says."""
        return self.config.settings.cross_attention

    @property
    def reads_prompts(self) -> bool:
        """Whether a picture's condition is another with a prompt than without."""
        return self.start is not None or self.reads != "learned"

    def told(self, labels_Q: Tensor, before: TextRows | None = None, dropped_Q: Tensor | None = None) -> Told:
        """Return what the decoder is told, before the language model has run.

        Args:
            labels_Q: of a decoder that knows classes.
            before: the language model's inputs before each picture, where the decoder reads these.
            dropped_Q: pictures of which nothing is told.
        """
        decoder = self.decoder
        if not isinstance(decoder, BitwiseDecoder):
            return labels_Q
        prompts: TextRows | None = before if self.reads == "embeddings" else None
        if prompts is None and self.start is not None:
            row_1W = self.start.weight[-1:]
            prompts = TextRows(row_1W.expand(len(labels_Q), -1), (1,) * len(labels_Q))
        if prompts is None:
            return decoder.condition(labels_Q)
        return decoder.condition(prompts if dropped_Q is None else decoder.drop_prompts(prompts, dropped_Q))

    def heard(self, told: Told, before: TextRows | None = None, dropped_Q: Tensor | None = None) -> Any:
        """Return the decoder's condition, once the language model has run.

        Args:
            before: hidden states (R, W) before each picture, where the decoder reads these.
            dropped_Q: pictures for which the rows of no prompt are read instead.
        """
        if not isinstance(told, Condition):
            return self.decoder.condition(told)
        if before is None or self.reads != "hidden":
            return told
        assert isinstance(self.decoder, BitwiseDecoder)
        read = TextRows(self.out(before.rows_RW), before.lengths)
        if dropped_Q is not None:
            read = self.decoder.drop_prompts(read, dropped_Q)
        return told._replace(text=read)

    def nothing(self, condition: Condition, rows: Sequence[int]) -> Condition:
        """Return the condition without a prompt that guidance leads away from, for some rows of another."""
        assert isinstance(self.decoder, BitwiseDecoder)
        some = condition.of(rows)
        read = self.decoder.unconditional(some.text)
        if self.reads == "embeddings":
            return self.decoder.condition(read)
        none = self.decoder.condition(torch.zeros(len(rows), dtype=torch.long, device=some.pooled_BC.device))
        return none._replace(text=read) if self.reads == "hidden" else none


def rows_before(states_BTW: Tensor, layout: PictureLayout, starts_BT: Tensor | None = None) -> TextRows | None:
    """Return what stands before each drawn picture of a batch, up to its start token, in its record; None without one.

    Before a picture that nothing precedes it is the start token itself.

    Args:
        states_BTW: of each position.
        starts_BT: where each position's record begins, in rows of several.
    """
    places = layout.start_BT.nonzero().tolist()
    if not places:
        return None
    first = [0] * len(places) if starts_BT is None else starts_BT[layout.start_BT].tolist()
    counts = [max(end - begin, 1) for (_, end), begin in zip(places, first, strict=True)]
    rows = [row for (row, _), count in zip(places, counts, strict=True) for _ in range(count)]
    spans = [begin + step for begin, count in zip(first, counts, strict=True) for step in range(count)]
    where = (torch.tensor(each, device=states_BTW.device) for each in (rows, spans))
    return TextRows(states_BTW[tuple(where)], tuple(counts))


def joined(first: Condition, second: Condition) -> Condition:
    """Return conditions of pictures with others behind them."""
    return Condition(
        torch.cat((first.pooled_BC, second.pooled_BC)),
        torch.cat((first.shared_B16C, second.shared_B16C)),
        first.text.joined(second.text),
    )
