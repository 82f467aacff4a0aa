"""Convolutional encoder and decoder of the image tokenizer (the f16 stacks of latent diffusion, arXiv 2112.10752).

Parameter names are those of the published VAR tokenizers. Every module keeps the memory format that it is given, so
that a caller who converts model and pictures to channels-last gets channels-last convolutions throughout.

Legend: B batch, C channels, H height, W width, P positions of a feature map (H x W).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vargpt_lightning.models.tokenizer.group_norm import GroupNorm, without_gradient
from vargpt_lightning.models.tokenizer.winograd import Conv3x3

NORM_GROUPS = 32
TAPS_OF_REPEATED = (((1.0, 0.0, 0.0), (0.0, 1.0, 1.0)), ((1.0, 1.0, 0.0), (0.0, 0.0, 1.0)))
"""Which of three taps fall on each of two neighbours, for the first and the second repetition of a pixel."""


def fast_format(x_BCHW: Tensor, weight: Tensor) -> Tensor:
    """Return maps that no gradient is wanted of in channels-last on CPU, where convolutions are faster in it."""
    return x_BCHW.contiguous(memory_format=torch.channels_last) if without_gradient(x_BCHW, weight) else x_BCHW


def group_norm(channels: int, groups: Sequence[int] = (NORM_GROUPS,)) -> GroupNorm:
    """Build a group normalisation with the first of these numbers of groups that divides the width.

    Narrower or uneven widths have the most groups that divide the first number too.
    """
    fitting = [count for count in groups if channels % count == 0]
    return GroupNorm(fitting[0] if fitting else math.gcd(groups[0], channels), channels, eps=1e-6)


def conv3x3(channels_in: int, channels_out: int) -> nn.Conv2d:
    """Build a convolution that keeps height and width."""
    return nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1)


def upsample_and_convolve(x_BCHW: Tensor, weight_OC33: Tensor, bias_O: Tensor | None) -> Tensor:
    """Repeat every pixel 2 x 2 times and convolve with a padding of one: (B, O, 2H, 2W).

    Taps that fall on the same pixel of the small map are added up before, so that each of the four repetitions has a
    2 x 2 kernel over the small map: 16 products a pixel of it in place of 36. Equal but for rounding.
    """
    B, C, H, W = x_BCHW.shape
    taps_RP3 = torch.tensor(TAPS_OF_REPEATED, dtype=weight_OC33.dtype, device=weight_OC33.device)
    taps_NK = torch.einsum("rpi,sqj->rspqij", taps_RP3, taps_RP3).reshape(16, 9)
    kernels_NM = taps_NK @ weight_OC33.permute(2, 3, 0, 1).reshape(9, -1)
    kernels_MC22 = kernels_NM.view(4, 2, 2, -1, C).permute(0, 3, 4, 1, 2).flatten(0, 1)
    y_BMhw = F.conv2d(x_BCHW, kernels_MC22, None if bias_O is None else bias_O.repeat(4), padding=1)
    y_BhwRSO = y_BMhw.permute(0, 2, 3, 1).unflatten(3, (2, 2, -1))
    rows = [torch.stack([y_BhwRSO[:, r : r + H, s : s + W, r, s] for s in (0, 1)], dim=3) for r in (0, 1)]
    return torch.stack(rows, dim=2).view(B, 2 * H, 2 * W, -1).permute(0, 3, 1, 2)


class Upsample(nn.Module):
    """Double height and width by repeating pixels, then smooth by a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv3x3(channels, channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if without_gradient(x_BCHW, self.conv.weight):  # what comes next wants channels-last
            return upsample_and_convolve(x_BCHW.contiguous(), self.conv.weight, self.conv.bias)
        if x_BCHW.device.type == "cpu":
            y_BCHW = upsample_and_convolve(x_BCHW, self.conv.weight, self.conv.bias)
            return y_BCHW.contiguous() if x_BCHW.is_contiguous() else y_BCHW
        return self.conv(F.interpolate(x_BCHW, scale_factor=2.0, mode="nearest"))


class Downsample(nn.Module):
    """Halve height and width by a strided convolution, padded at the right and bottom only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel_size=3, stride=2)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.conv(F.pad(x_BCHW, (0, 1, 0, 1)))


class ResidualBlock(nn.Module):
    """Two normalised convolutions beside a shortcut, which is a 1x1 convolution where the width changes."""

    def __init__(
        self, channels_in: int, channels_out: int, dropout: float, groups: Sequence[int] = (NORM_GROUPS,)
    ) -> None:
        super().__init__()
        self.norm1 = group_norm(channels_in, groups)
        self.conv1 = Conv3x3(channels_in, channels_out)
        self.norm2 = group_norm(channels_out, groups)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = Conv3x3(channels_out, channels_out)
        same = channels_in == channels_out
        self.nin_shortcut = nn.Identity() if same else nn.Conv2d(channels_in, channels_out, kernel_size=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        h_BCHW = self.conv1(F.silu(self.norm1(x_BCHW), inplace=True))
        h_BCHW = self.conv2(self.dropout(F.silu(self.norm2(h_BCHW), inplace=True)))
        return self.nin_shortcut(x_BCHW) + h_BCHW


class AttentionBlock(nn.Module):
    """Single-head self-attention over all positions of a feature map, added to its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, kernel_size=1)
        self.proj_out = nn.Conv2d(channels, channels, kernel_size=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        # The head axis keeps the fused attention kernels, which want four dimensions.
        qkv_B1PC = self.qkv(self.norm(x_BCHW)).flatten(2).transpose(1, 2).unsqueeze(1)
        q_B1PC, k_B1PC, v_B1PC = qkv_B1PC.chunk(3, dim=-1)
        h_BPC = F.scaled_dot_product_attention(q_B1PC, k_B1PC, v_B1PC).squeeze(1)
        return x_BCHW + self.proj_out(h_BPC.transpose(1, 2).unflatten(2, x_BCHW.shape[2:]))


class Level(nn.Module):
    """The residual blocks of one resolution, each followed by attention where wanted, then the change of resolution."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        blocks: int,
        *,
        attention: bool,
        dropout: float,
        groups: Sequence[int],
        downsample: bool = False,
        upsample: bool = False,
    ) -> None:
        super().__init__()
        widths = [channels_in] + [channels_out] * blocks
        self.block = nn.ModuleList(ResidualBlock(widths[i], widths[i + 1], dropout, groups) for i in range(blocks))
        self.attn = nn.ModuleList(AttentionBlock(channels_out) for _ in range(blocks if attention else 0))
        self.downsample = Downsample(channels_out) if downsample else nn.Identity()
        self.upsample = Upsample(channels_out) if upsample else nn.Identity()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        for i, block in enumerate(self.block):
            x_BCHW = block(x_BCHW)
            if len(self.attn):
                x_BCHW = self.attn[i](x_BCHW)
        return self.upsample(self.downsample(x_BCHW))


class Middle(nn.Module):
    """The blocks at the lowest resolution: residual, attention, residual."""

    def __init__(self, channels: int, *, attention: bool, dropout: float, groups: Sequence[int]) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(channels, channels, dropout, groups)
        self.attn_1 = AttentionBlock(channels) if attention else nn.Identity()
        self.block_2 = ResidualBlock(channels, channels, dropout, groups)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x_BCHW)))


class Encoder(nn.Module):
    """Turn pictures (B, 3, H, W) into feature maps that are patch * 2 ** (levels - 1) times smaller.

    ``multipliers`` gives each level's width in units of ``channels``; attention runs at the last level alone. The first
    convolution is given squares of ``patch`` pixels as channels. For ``groups`` see `group_norm`.
    """

    def __init__(
        self,
        channels: int,
        multipliers: Sequence[int],
        blocks: int,
        channels_out: int,
        *,
        attention: bool = True,
        dropout: float = 0.0,
        patch: int = 1,
        groups: Sequence[int] = (NORM_GROUPS,),
    ) -> None:
        super().__init__()
        self.patch = patch
        widths = [channels * multiplier for multiplier in (1, *multipliers)]
        last = len(multipliers) - 1
        self.conv_in = conv3x3(3 * patch**2, channels)
        self.down = nn.ModuleList(
            Level(
                widths[i],
                widths[i + 1],
                blocks,
                attention=attention and i == last,
                dropout=dropout,
                groups=groups,
                downsample=i != last,
            )
            for i in range(len(multipliers))
        )
        self.mid = Middle(widths[-1], attention=attention, dropout=dropout, groups=groups)
        self.norm_out = group_norm(widths[-1], groups)
        self.conv_out = conv3x3(widths[-1], channels_out)

    def forward(self, x_B3HW: Tensor) -> Tensor:
        h_BCHW = self.conv_in(F.pixel_unshuffle(x_B3HW, self.patch) if self.patch > 1 else x_B3HW)
        for level in self.down:
            h_BCHW = level(h_BCHW)
        return self.conv_out(F.silu(self.norm_out(self.mid(h_BCHW)), inplace=True))


class Decoder(nn.Module):
    """Turn feature maps into pictures (B, 3, H, W): the mirror image of the encoder.

    Each level has one residual block more than the encoder's. ``up`` is ordered by resolution, finest first, as in
    published checkpoints, and runs from its end.
    """

    def __init__(
        self,
        channels: int,
        multipliers: Sequence[int],
        blocks: int,
        channels_in: int,
        *,
        attention: bool = True,
        dropout: float = 0.0,
        patch: int = 1,
        groups: Sequence[int] = (NORM_GROUPS,),
    ) -> None:
        super().__init__()
        self.patch = patch
        widths = [channels * multiplier for multiplier in (*multipliers, multipliers[-1])]
        last = len(multipliers) - 1
        self.conv_in = conv3x3(channels_in, widths[-1])
        self.mid = Middle(widths[-1], attention=attention, dropout=dropout, groups=groups)
        self.up = nn.ModuleList(
            Level(
                widths[i + 1],
                widths[i],
                blocks + 1,
                attention=attention and i == last,
                dropout=dropout,
                groups=groups,
                upsample=i != 0,
            )
            for i in range(len(multipliers))
        )
        self.norm_out = group_norm(widths[0], groups)
        self.conv_out = conv3x3(widths[0], 3 * patch**2)

    def forward(self, z_BCHW: Tensor) -> Tensor:
        h_BCHW = self.mid(self.conv_in(z_BCHW))
        for level in reversed(self.up):
            h_BCHW = level(h_BCHW)
        x_BCHW = self.conv_out(F.silu(self.norm_out(h_BCHW), inplace=True))
        return F.pixel_shuffle(x_BCHW, self.patch) if self.patch > 1 else x_BCHW
