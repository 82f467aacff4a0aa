"""The network of the tower `qwen2_vl`, and its merger.

Legend: P seen pictures, S side of a patch, N patches of a picture, four a token, D width of a head, C channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vargpt_lightning.models.vision.networks.transformer import Mlp, Phases, attend, draw
from vargpt_lightning.models.vision.strips import Strips

if TYPE_CHECKING:
    from vargpt_lightning.models.core.vision_config import VisionConfig

MERGED = 4
"""Patches of a token, 2 x 2."""
_FRAMES = 2
"""A picture counts as a film of two equal frames."""
_EPS, _BASE = 1e-6, 10000.0


class Qwen2VLAttention(nn.Module):
    """Attention whose queries, keys and values come from one matrix, with positions that turn heads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x_PNC: Tensor, phases: Phases, mask: Tensor) -> Tensor:
        query_PNC, key_PNC, value_PNC = self.qkv(x_PNC).chunk(3, -1)
        return self.proj(attend(query_PNC, key_PNC, value_PNC, self.heads, phases, mask))


class Qwen2VLBlock(nn.Module):
    """Attention and feed-forward, each behind a normalisation."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(config.width, eps=_EPS), nn.LayerNorm(config.width, eps=_EPS)
        self.attn = Qwen2VLAttention(config.width, config.heads)
        self.mlp = Mlp(config.width, config.mlp, "quick_gelu")

    def forward(self, x_PNC: Tensor, phases: Phases, mask: Tensor) -> Tensor:
        x_PNC = x_PNC + self.attn(self.norm1(x_PNC), phases, mask)
        return x_PNC + self.mlp(self.norm2(x_PNC))


class PatchEmbed(nn.Module):
    """A patch's two frames to its channels; the weight has the shape of a convolution over both."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        kernel = (_FRAMES, config.patch_size, config.patch_size)
        self.proj = nn.Conv3d(3, config.width, kernel, kernel, bias=False)

    def forward(self, patches_PNSSC: Tensor) -> Tensor:
        frame_PN3SS = patches_PNSSC.permute(0, 1, 4, 2, 3)
        both = frame_PN3SS[:, :, :, None].expand(-1, -1, -1, _FRAMES, -1, -1)
        return F.linear(both.flatten(2), self.proj.weight.flatten(1))


class Qwen2VL(nn.Module):
    """The network: four patches' last states side by side for each token, which the merger makes one of."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.head = config.width // config.heads
        self.patch_embed = PatchEmbed(config)
        self.blocks = nn.ModuleList(Qwen2VLBlock(config) for _ in range(config.layers))
        draw(self)

    def forward(self, strips_P4SW: Tensor) -> Tensor:
        strips = Strips.read(strips_P4SW, MERGED)
        x_PNC, phases, mask = self.patch_embed(strips.patches_PNSSC), self.phases(strips), strips.mask(MERGED)
        for block in self.blocks:
            x_PNC = block(x_PNC, phases, mask)
        features_PNC = x_PNC.unflatten(1, (-1, MERGED)).flatten(2)
        return features_PNC.masked_fill(~strips.valid_PN[..., None], 0.0)

    def phases(self, strips: Strips) -> Phases:
        """Return how the patches' heads are turned: a quarter of them by rows, a quarter by columns, twice."""
        inside = torch.arange(MERGED, device=strips.rows_PN.device)
        rows_PN = (2 * strips.rows_PN[..., None] + inside // 2).flatten(1)
        columns_PN = (2 * strips.columns_PN[..., None] + inside % 2).flatten(1)
        half = self.head // 2
        steps = 1.0 / _BASE ** (torch.arange(0, half, 2, dtype=torch.float32, device=inside.device) / half)
        angles = torch.cat([rows_PN[..., None] * steps, columns_PN[..., None] * steps], -1)
        return Phases.of(torch.cat([angles, angles], -1)[:, None])


class Merger(nn.Module):
    """Qwen2-VL's projector: each patch normalised, four of them to one token of the language model's width."""

    def __init__(self, patch_width: int, width: int) -> None:
        super().__init__()
        self.ln_q = nn.LayerNorm(patch_width, eps=_EPS)
        inner = MERGED * patch_width
        self.mlp = nn.Sequential(nn.Linear(inner, inner), nn.GELU(), nn.Linear(inner, width))

    def forward(self, features_PNC: Tensor) -> Tensor:
        """Return tokens (P, N, width) of features (P, N, 4 x patch width)."""
        return self.mlp(self.ln_q(features_PNC.unflatten(-1, (MERGED, -1))).flatten(-2))
