"""What the bitwise decoder makes of a prompt: rows to attend to, and one vector that modulates all blocks.

Shapes: B prompts, R text rows of all prompts, n of one, W width of the text, C width of the decoder.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vargpt_lightning.models.bitwise.blocks import Condition
from vargpt_lightning.models.bitwise.text import AttentivePool, TextRows
from vargpt_lightning.models.decoder.blocks import SharedModulation
from vargpt_lightning.utils.errors import UserError

Prompts = TextRows | Tensor
"""Encoded prompts; or labels (B,), as `VisualDecoder` takes them: pictures without a prompt."""

ROW_STD = 0.5
"""Of learned places at the start, beside rows of the size 1."""


class PromptReader(nn.Module):
    """The part of a decoder that reads prompts.

    Args:
        width: C.
        text_width: W.
        text_rows: rows that stand for no prompt.
        norm_eps: epsilon of the normalisation.
        rounded: see `CrossAttention`.
        repeat: let the last of these rows stand for what a longer prompt has more, rather than refuse it.
        positions: tell each row how far from the prompt's end it stands, by a learned embedding.
    """

    def __init__(
        self,
        width: int,
        text_width: int,
        text_rows: int,
        *,
        norm_eps: float,
        rounded: bool,
        repeat: bool = False,
        positions: bool = False,
    ) -> None:
        super().__init__()
        self.repeat = repeat
        self.cfg_uncond = nn.Parameter(torch.empty(text_rows, text_width))
        self.row_pos = nn.Parameter(torch.empty(text_rows, text_width)) if positions else None
        self.text_norm = nn.RMSNorm(text_width, eps=norm_eps)
        self.text_proj_for_sos = AttentivePool(width, text_width, rounded=rounded)
        self.text_proj_for_ca = nn.Sequential(
            nn.Linear(text_width, width), nn.GELU(approximate="tanh"), nn.Linear(width, width)
        )
        self.shared_ada_lin = nn.Sequential(nn.SiLU(), SharedModulation(width, 6 * width))

    @torch.no_grad()
    def reset_prompts(self, std: float) -> None:
        """Fills the rows that stand for no prompt, and the pool's query."""
        nn.init.trunc_normal_(self.text_proj_for_sos.ca.mat_q, std=std)
        nn.init.trunc_normal_(self.cfg_uncond, std=1.2).div_(math.sqrt(self.cfg_uncond.shape[1]))
        if self.row_pos is not None:
            nn.init.trunc_normal_(self.row_pos, std=ROW_STD)

    def unconditional(self, text: TextRows) -> TextRows:
        """Return the rows that stand for no prompt, as many for each prompt as it has itself.

        Raises:
            UserError: a prompt has more rows than there are, and the last of them is not to be repeated.
        """
        most = self.cfg_uncond.shape[0]
        if max(text.lengths) > most and not self.repeat:
            raise UserError(
                f"prompt: got {max(text.lengths)} rows, expected at most {most} where it may be dropped (decoder."
                "text_rows); decoder.long_prompts: repeat takes longer ones"
            )
        places = [place for n in text.lengths for place in range(n)]
        return TextRows(_rows_at(self.cfg_uncond, places).to(text.rows_RW.dtype), text.lengths)

    def drop_prompts(self, text: TextRows, dropped_B: Tensor) -> TextRows:
        """Return prompts of which some are dropped; the given rows stay as they are."""
        lengths_B = torch.tensor(text.lengths, device=dropped_B.device)
        dropped_R1 = dropped_B.repeat_interleave(lengths_B)[:, None].to(text.rows_RW.device)
        return TextRows(torch.where(dropped_R1, self.unconditional(text).rows_RW, text.rows_RW), text.lengths)

    def condition(self, prompts: Prompts) -> Condition:
        """What steers every block for these prompts; without one, the first row of those that stand for none."""
        text = prompts
        if isinstance(text, Tensor):
            text = TextRows(self.cfg_uncond[:1].expand(len(text), -1), (1,) * len(text))
        normal = self._placed(TextRows(self.text_norm(text.rows_RW), text.lengths))
        pooled_BC = self.text_proj_for_sos(normal)
        read = TextRows(self.text_proj_for_ca(normal.rows_RW), text.lengths)
        return Condition(pooled_BC, self.shared_ada_lin(pooled_BC), read)

    def _placed(self, text: TextRows) -> TextRows:
        """Add to each row what tells its place, counted from the end of its prompt."""
        if self.row_pos is None:
            return text
        places = [place for n in text.lengths for place in reversed(range(n))]
        return TextRows(text.rows_RW + _rows_at(self.row_pos, places).to(text.rows_RW.dtype), text.lengths)


def _rows_at(table_RW: Tensor, places: list[int]) -> Tensor:
    """Return the rows of places; the last row stands for those beyond it."""
    return table_RW[torch.tensor(places, device=table_RW.device).clamp_max(len(table_RW) - 1)]
