"""An encoder that sees each square of pixels by itself: equal squares have equal features wherever they stand.

Convolutions and group normalisation carry what is drawn elsewhere into a token's features, so that even a white square
has hundreds of codes. A small next-scale transformer then spends its training on telling these apart.

Legend: B batch, C channels, H and W height and width of the feature map.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation of the channels of each position by itself."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return super().forward(x_BCHW.movedim(1, -1)).movedim(-1, 1)


class LocalBlock(nn.Module):
    """Two 1 x 1 convolutions beside a shortcut, twice as wide between them."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.conv1 = nn.Conv2d(channels, 2 * channels, kernel_size=1)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(2 * channels, channels, kernel_size=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        h_BCHW = F.silu(self.conv1(self.norm(x_BCHW)), inplace=True)
        return x_BCHW + self.conv2(self.dropout(h_BCHW))


class LocalEncoder(nn.Module):
    """Turn pictures (B, 3, H * square, W * square) into features (B, channels_out, H, W), each of its own square.

    Args:
        square: side of the squares in pixels.
        channels: width of the convolutions.
        blocks: how many `LocalBlock`s there are.
        channels_out: channels of the features.
        dropout: dropout in the blocks.
    """

    def __init__(self, square: int, channels: int, blocks: int, channels_out: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.square = square
        self.conv_in = nn.Conv2d(3 * square**2, channels, kernel_size=1)
        self.blocks = nn.Sequential(*(LocalBlock(channels, dropout) for _ in range(blocks)))
        self.norm_out = ChannelNorm(channels)
        self.conv_out = nn.Conv2d(channels, channels_out, kernel_size=1)

    def forward(self, x_B3HW: Tensor) -> Tensor:
        h_BCHW = self.conv_in(F.pixel_unshuffle(x_B3HW, self.square))
        return self.conv_out(self.norm_out(self.blocks(h_BCHW)))
