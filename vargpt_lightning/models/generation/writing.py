"""Words: the next token of each row from its logits, and where a text ends.

Legend: R rows of a step, V text vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vargpt_lightning.models.core.config import TokenIds
from vargpt_lightning.models.generation.row_sampling import filter_rows, sample_rows
from vargpt_lightning.models.generation.rows import Row


def never_written(tokens: TokenIds, device: torch.device) -> Tensor:
    """Return the ids that stand for what text cannot be; the end token stays even where it serves as padding too."""
    never = {tokens.image, tokens.image_gen, tokens.image_gen_end, tokens.pad, tokens.bos}
    return torch.tensor(sorted(never - {tokens.eos}), device=device)


def choose(allowed_RV: Tensor, rows: Sequence[Row]) -> list[int]:
    """Return the next token of each row: the likeliest, or drawn from its own stream."""
    chosen_R = allowed_RV.argmax(-1)
    if sampled := [r for r, row in enumerate(rows) if row.settings.temperature != 0]:
        own = [rows[r].settings for r in sampled]
        temperature_R1 = torch.tensor([[each.temperature] for each in own], device=allowed_RV.device)
        logits_R1V = (allowed_RV[sampled] / temperature_R1)[:, None]
        filtered_R1V = filter_rows(logits_R1V, [each.text_top_k for each in own], [each.text_top_p for each in own])
        chosen_R[sampled] = sample_rows(filtered_R1V, [rows[r].generator for r in sampled])[:, 0]
    return chosen_R.tolist()


def stop_place(text: str, stops: Sequence[str]) -> int | None:
    """Return where the first of some texts begins in another, None where none is in it."""
    return min((place for stop in stops if (place := text.find(stop)) >= 0), default=None)
