"""Positions in three dimensions of sequences with seen pictures, as Qwen2-VL has them (arXiv 2409.12191, section 2.1).

A word's position is one number three times over. A picture's tokens share the first, and count rows and columns of its
grid in the other two; what follows goes on behind the largest.

Legend: B batch, T text+image sequence, P seen pictures of the batch, N placeholders of one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vargpt_lightning.utils.errors import UserError


def seen_positions(seen_BT: Tensor, shapes_P2: Tensor | None, patches: int, starts_BT: Tensor | None = None) -> Tensor:
    """Return positions (3, B, T).

    Args:
        seen_BT: True at the placeholders of seen pictures.
        shapes_P2: rows and columns of each picture's tokens; placeholders beyond them stand where its last token does.
        patches: N.
        starts_BT: where each position's record begins, in rows of several; each counts from 0.

    Raises:
        UserError: shapes and placeholders do not match.
    """
    waiting, given = int(seen_BT.sum()), 0 if shapes_P2 is None else len(shapes_P2)
    if waiting != given * patches:
        raise UserError(f"input_ids: {waiting} places of seen pictures, expected {patches} for each of {given} shapes")
    step_BT = torch.ones_like(seen_BT, dtype=torch.long)
    inside_BT2 = torch.zeros((*seen_BT.shape, 2), dtype=torch.long, device=seen_BT.device)
    if shapes_P2 is not None and given:
        index_N = torch.arange(patches, device=seen_BT.device)
        rows_P1, columns_P1 = shapes_P2.long().to(seen_BT.device)[..., None].unbind(1)
        last_PN = torch.minimum(index_N, rows_P1 * columns_P1 - 1)
        places_PN2 = torch.stack((last_PN // columns_P1, last_PN % columns_P1), -1)
        inside_BT2[seen_BT] = places_PN2.flatten(0, 1)
        # a picture's own places stand still, and behind its last one the largest of them is passed
        step_PN = (index_N == patches - 1) * torch.maximum(rows_P1, columns_P1)
        step_BT[seen_BT] = step_PN.flatten()
    first_BT = step_BT.cumsum(1) - step_BT
    if starts_BT is not None:
        first_BT = first_BT - first_BT.gather(1, starts_BT)
    return torch.stack((first_BT, first_BT + inside_BT2[..., 0], first_BT + inside_BT2[..., 1]))
