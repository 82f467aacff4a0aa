"""Attention within a window: of what a mask lets it see, a token sees the last so many alone, and all after it.

Legend: B batch, n new tokens, S positions that are seen.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def windowed(mask: Any, window: int, query_Bn: Tensor, kernel: str) -> Any:
    """Return a mask without what lies `window` positions or more before a token, as the attention's kernel takes it.

    Args:
        mask: (B, 1, n, S), or FlexAttention's block mask; None for a kernel that is causal by itself.
        query_Bn: the tokens' own positions among the S.
    """
    if kernel == "flex_attention":
        return _windowed_blocks(mask, window, query_Bn)
    if mask is None and kernel != "sdpa":
        return None  # kernels that take no masks are told of the window
    total = query_Bn.shape[1] if mask is None else mask.shape[-1]
    if total <= window:
        return mask
    behind_BnS = query_Bn[..., None] - torch.arange(total, device=query_Bn.device)
    near_B1nS = (behind_BnS < window)[:, None]
    if mask is None:
        return near_B1nS & (behind_BnS >= 0)[:, None]
    if mask.dtype is torch.bool:
        # padding may have nothing else to see, and attention to nothing is no number
        return (mask & near_B1nS) | (behind_BnS == 0)[:, None]
    return mask.masked_fill(~near_B1nS, torch.finfo(mask.dtype).min)


def _windowed_blocks(mask: Any, window: int, query_Bn: Tensor) -> Any:
    from torch.nn.attention.flex_attention import and_masks, create_block_mask

    rows, total = mask.seq_lengths
    if total <= window:
        return mask
    near = and_masks(mask.mask_mod, lambda b, h, query, key: query - key < window)
    return create_block_mask(near, mask.shape[0], None, rows, total, device=str(query_Bn.device))
