"""Who attends to whom inside the language model, for sequences of text, seen pictures and drawn pictures.

Every position attends to one run of positions, from a first to a last, so two integers a position say it all. Text
reaches from the beginning of its record to itself; a drawn picture's token reaches to the end of its own scale, and a
picture whose context is hidden begins at its own start token. Of several records in a row none reaches into another.

Legend: B batch, T text+image sequence, Q drawn pictures of the batch, L visual tokens of all scales, n new tokens,
S cache slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from vargpt_lightning.models.core.config import TokenIds
from vargpt_lightning.models.core.scales import ScaleSchedule
from vargpt_lightning.models.core.settings import MASKED_KERNELS, VisualAttention
from vargpt_lightning.utils.errors import UserError

"""Attention kernels, by transformers' names, that take any mask."""


@dataclass(frozen=True)
class PictureLayout:
    """Where the drawn pictures of a batch lie.

    Attributes:
        drawn_BT: True at the visual tokens of drawn pictures.
        places_BT: True there and where places of pictures are filled up.
        offset_BT: index of a visual token within its picture (0 to L-1); undefined elsewhere.
        picture_BT: number of its picture in the batch, row by row (0 to Q-1); undefined elsewhere.
        start_BT: True at the start tokens, whose picture is that of the position after them.
    """

    drawn_BT: Tensor
    places_BT: Tensor
    offset_BT: Tensor
    picture_BT: Tensor
    start_BT: Tensor


def find_pictures(
    input_ids_BT: Tensor,
    tokens: TokenIds,
    num_tokens: int | Sequence[int],
    length: int | Sequence[int] | None = None,
) -> PictureLayout:
    """Find the drawn pictures of a batch: each a start token followed by its visual tokens.

    Args:
        num_tokens: L of all pictures; or of each, row by row, where they have several sizes.
        length: the places of a picture, or of each, where they are more than its tokens; the last hold nothing.

    Raises:
        UserError: a run of visual tokens has another length, or no start token before it.
    """
    length = num_tokens if length is None else length
    places_BT = input_ids_BT == tokens.image_gen
    rank_BT = places_BT.flatten().cumsum(0).view_as(input_ids_BT) - 1
    if isinstance(length, int):
        counts_B = places_BT.sum(1)
        if (counts_B % length).any():
            raise UserError(
                f"input_ids: rows hold {counts_B.tolist()} visual tokens, expected multiples of {length} (one picture)"
            )
        offset_BT = rank_BT.clamp_min(0) % length
        picture_BT = rank_BT.clamp_min(0) // length
        last_BT = offset_BT == length - 1
    else:
        offset_BT, picture_BT, last_BT = _counted(rank_BT, places_BT, length)
    opening_BT = places_BT & (offset_BT == 0)
    start_BT = torch.zeros_like(places_BT)
    start_BT[:, :-1] = opening_BT[:, 1:]
    begun_BT = torch.where(
        opening_BT[:, 1:], input_ids_BT[:, :-1] == tokens.image_gen_start, (places_BT & ~last_BT)[:, :-1]
    )
    if opening_BT[:, 0].any() or (places_BT[:, 1:] & ~begun_BT).any():
        raise UserError("input_ids: expected every run of visual tokens to be whole and to follow <image_gen_start>")
    tokens_BT: Tensor | int = num_tokens if isinstance(num_tokens, int) else 0
    if not isinstance(num_tokens, int) and num_tokens:
        tokens_BT = torch.tensor(num_tokens, device=rank_BT.device)[picture_BT]
    return PictureLayout(places_BT & (offset_BT < tokens_BT), places_BT, offset_BT, picture_BT, start_BT)


def _counted(rank_BT: Tensor, drawn_BT: Tensor, counts: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Offset and number of the picture that each visual token is of, and whether it is its last, of so many each."""
    ends_Q = torch.tensor([0, *counts], device=rank_BT.device).cumsum(0)
    if int(drawn_BT.sum()) != int(ends_Q[-1]) or drawn_BT[:, 0].any():
        raise UserError(f"input_ids: {int(drawn_BT.sum())} visual tokens, expected {list(counts)} of the pictures")
    picture_BT = torch.searchsorted(ends_Q[1:], rank_BT.clamp_min(0), right=True).clamp_max(max(len(counts) - 1, 0))
    offset_BT = rank_BT.clamp_min(0) - ends_Q[picture_BT]
    return offset_BT, picture_BT, rank_BT + 1 == ends_Q[picture_BT + 1 if counts else picture_BT]


def scale_ends(schedule: ScaleSchedule, device: torch.device) -> Tensor:
    """Return, for each of a picture's L tokens, the offset of the last token of its scale."""
    last_K = torch.tensor([part.stop - 1 for part in schedule.slices], device=device)
    return last_K[schedule.level_ids(device=device)]


def _ends(layout: PictureLayout, schedule: ScaleSchedule | Sequence[ScaleSchedule]) -> Tensor:
    """The offset of the last token of each visual token's scale (B, T); undefined elsewhere."""
    device = layout.offset_BT.device
    if isinstance(schedule, ScaleSchedule):
        return scale_ends(schedule, device)[layout.offset_BT.clamp_max(schedule.num_tokens - 1)]
    if not schedule:
        return layout.offset_BT
    kinds = list(dict.fromkeys(schedule))
    firsts = [0, *accumulate(each.num_tokens for each in kinds)]
    first_Q = torch.tensor([firsts[kinds.index(each)] for each in schedule], device=device)
    table_N = torch.cat([scale_ends(each, device) for each in kinds])
    place_BT = first_Q[layout.picture_BT] + layout.offset_BT
    return table_N[torch.where(layout.drawn_BT, place_BT, 0)]


@dataclass(frozen=True)
class Spans:
    """The run of positions that each position attends to.

    Attributes:
        first_BT: where it begins; None where all runs begin at position 0.
        last_BT: where it ends, itself included.
        valid_BT: False at padding, which nobody attends to.
    """

    first_BT: Tensor | None
    last_BT: Tensor
    valid_BT: Tensor


def attention_spans(
    layout: PictureLayout,
    valid_BT: Tensor,
    schedule: ScaleSchedule | Sequence[ScaleSchedule],
    visual_attention: VisualAttention,
    hidden_Q: Tensor | None = None,
    starts_BT: Tensor | None = None,
) -> Spans:
    """Return who attends to whom; arguments as for `attention_mask`."""
    position_BT = torch.arange(valid_BT.shape[1], device=valid_BT.device).expand_as(valid_BT)
    last_BT = position_BT
    if visual_attention == "block_causal":
        ahead_BT = _ends(layout, schedule) - layout.offset_BT
        last_BT = torch.where(layout.drawn_BT, position_BT + ahead_BT, position_BT)
    first_BT = starts_BT
    if hidden_Q is not None:
        otherwise_BT = torch.zeros_like(position_BT) if starts_BT is None else starts_BT
        first_BT = _first_seen(layout, position_BT, hidden_Q, otherwise_BT)
    return Spans(first_BT, last_BT, valid_BT)


def dense_mask(spans: Spans) -> Tensor:
    """Return the spans as a boolean mask (B, 1, T, T)."""
    position_BT = torch.arange(spans.last_BT.shape[1], device=spans.last_BT.device).expand_as(spans.last_BT)
    mask_BTT = (position_BT[:, None, :] <= spans.last_BT[:, :, None]) & spans.valid_BT[:, None, :]
    if spans.first_BT is not None:
        mask_BTT &= position_BT[:, None, :] >= spans.first_BT[:, :, None]
    return mask_BTT[:, None]


def block_mask(spans: Spans) -> Any:
    """Return the spans as FlexAttention's block mask, which leaves out the blocks that nobody attends to."""
    from torch.nn.attention.flex_attention import create_block_mask

    batch, length = spans.last_BT.shape
    first_BT = torch.zeros_like(spans.last_BT) if spans.first_BT is None else spans.first_BT
    last_BT, valid_BT = spans.last_BT, spans.valid_BT

    def attends(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key >= first_BT[b, query]) & (key <= last_BT[b, query]) & valid_BT[b, key]

    return create_block_mask(attends, batch, None, length, length, device=str(last_BT.device))


def kernel_mask(mask: Tensor | None, kernel: str, dtype: torch.dtype) -> Tensor | None:
    """Return a boolean mask (B, 1, n, S) as the attention kernel takes it; "sdpa" takes it as it is.

    Raises:
        UserError: a kernel that takes no masks.
    """
    if mask is None or kernel == "sdpa":
        return mask
    if kernel not in MASKED_KERNELS:
        raise UserError(
            f"model.language.attention: got {kernel!r}, expected one of {', '.join(MASKED_KERNELS)}: it takes no mask, "
            "which drawn pictures and packed records need"
        )
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)


def attention_mask(
    layout: PictureLayout,
    valid_BT: Tensor,
    schedule: ScaleSchedule | Sequence[ScaleSchedule],
    visual_attention: VisualAttention,
    hidden_Q: Tensor | None = None,
    starts_BT: Tensor | None = None,
) -> Tensor:
    """Return the boolean mask (B, 1, T, T), True where the row's position may attend to the column's.

    Args:
        layout: where the drawn pictures lie.
        valid_BT: False at padding, which nobody attends to.
        schedule: of all drawn pictures; or of each, where they have several sizes.
        visual_attention: "block_causal" lets a visual token see its whole scale (VARGPT, section 3.2), "causal" only
            what stands before it.
        hidden_Q: pictures whose context is hidden: their start and visual tokens see nothing before the start token.
        starts_BT: where each position's record begins, in rows of several records.
    """
    return dense_mask(attention_spans(layout, valid_BT, schedule, visual_attention, hidden_Q, starts_BT))


def _first_seen(layout: PictureLayout, position_BT: Tensor, hidden_Q: Tensor, otherwise_BT: Tensor) -> Tensor:
    """First position that each position attends to: within a picture whose context is hidden it is the start token."""
    picture_BT = layout.picture_BT.clone()
    picture_BT[:, :-1] = torch.where(layout.start_BT[:, :-1], layout.picture_BT[:, 1:], layout.picture_BT[:, :-1])
    hidden_BT = (layout.drawn_BT | layout.start_BT) & hidden_Q[picture_BT]
    begin_BT = torch.where(layout.drawn_BT, position_BT - layout.offset_BT - 1, position_BT)
    return torch.where(hidden_BT, begin_BT, otherwise_BT)


def step_mask(last_Rn: Tensor, total: int) -> Tensor:
    """Return the mask (R, 1, n, S) of new tokens over the first `total` slots of a cache filled from slot 0.

    Args:
        last_Rn: the last slot that each token sees.
    """
    return (torch.arange(total, device=last_Rn.device) <= last_Rn[..., None])[:, None]
