"""Several records in a row: where each begins, what its positions are, and what of it is trained.

`segment_ids` number the records of a row from 1; padding is 0.

Legend: B batch, T text+image sequence, S segments.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vargpt_lightning.models.core.losses import IGNORED


def record_starts(segments_BT: Tensor) -> Tensor:
    """Return, for each position, where its record begins.

    Padding begins at position 0: what it attends to matters to nobody, but it must be something.
    """
    position_T = torch.arange(segments_BT.shape[1], device=segments_BT.device)
    begins_BT = torch.ones_like(segments_BT, dtype=torch.bool)
    begins_BT[:, 1:] = segments_BT[:, 1:] != segments_BT[:, :-1]
    return torch.where(begins_BT, position_T, 0).cummax(1).values.masked_fill(segments_BT == 0, 0)


def record_positions(starts_BT: Tensor) -> Tensor:
    """Return the positions within the records, each from 0."""
    return torch.arange(starts_BT.shape[1], device=starts_BT.device) - starts_BT


def records_with(wanted_BT: Tensor, segments_BT: Tensor) -> Tensor:
    """Return True at all positions (B, T) of records that have a position which is wanted."""
    found_BS = F.pad(torch.zeros_like(segments_BT), (0, 1)).scatter_add(1, segments_BT, wanted_BT.to(segments_BT))
    return found_BS.gather(1, segments_BT) > 0


def labels_inside(labels_BT: Tensor, segments_BT: Tensor) -> Tensor:
    """Return the labels without the records' first tokens: what stands before them is another record's last."""
    begins_BT = segments_BT[:, 1:] != segments_BT[:, :-1]
    return F.pad(labels_BT[:, 1:].masked_fill(begins_BT, IGNORED), (1, 0), value=IGNORED)
