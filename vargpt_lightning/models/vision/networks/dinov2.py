"""The network of the tower `dinov2`.

Legend: P seen pictures, S picture side, N feature tokens of a picture, C channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vargpt_lightning.models.vision.networks.transformer import LayerScale, Mlp, attend, draw, hidden_state, resized

if TYPE_CHECKING:
    from vargpt_lightning.models.core.vision_config import VisionConfig


class Inputs(nn.Module):
    """What attention begins with."""

    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(width, width, bias=bias), nn.Linear(width, width, bias=bias)
        self.value = nn.Linear(width, width, bias=bias)

    def forward(self, x_PNC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.query(x_PNC), self.key(x_PNC), self.value(x_PNC)


class Output(nn.Module):
    """What attention ends with."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)

    def forward(self, x_PNC: Tensor) -> Tensor:
        return self.dense(x_PNC)


class Dinov2Attention(nn.Module):
    """Attention whose matrices lie in two modules."""

    def __init__(self, width: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.attention, self.output = Inputs(width, bias), Output(width)

    def forward(self, x_PNC: Tensor) -> Tensor:
        query_PNC, key_PNC, value_PNC = self.attention(x_PNC)
        return self.output(attend(query_PNC, key_PNC, value_PNC, self.heads, None))


class GatedMlp(nn.Module):
    """The giant model's feed-forward block: one matrix makes gate and values, which SiLU of the gate multiplies."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        gated = (inner * 2 // 3 + 7) // 8 * 8
        self.weights_in, self.weights_out = nn.Linear(width, 2 * gated), nn.Linear(gated, width)

    def forward(self, x_PNC: Tensor) -> Tensor:
        gate_PNC, values_PNC = self.weights_in(x_PNC).chunk(2, -1)
        return self.weights_out(F.silu(gate_PNC) * values_PNC)


class Dinov2Block(nn.Module):
    """Attention and feed-forward, each behind a normalisation and scaled channel by channel."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width, options = config.width, config.options
        eps, scale = options.get("layer_norm_eps", 1e-6), options.get("layerscale_value", 1.0)
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=eps), nn.LayerNorm(width, eps=eps)
        self.attention = Dinov2Attention(width, config.heads, options.get("qkv_bias", True))
        self.layer_scale1, self.layer_scale2 = LayerScale(width, scale), LayerScale(width, scale)
        gated = options.get("use_swiglu_ffn", False)
        plain = Mlp(width, config.mlp, options.get("hidden_act", "gelu"))
        self.mlp = GatedMlp(width, config.mlp) if gated else plain

    def forward(self, x_PNC: Tensor) -> Tensor:
        x_PNC = x_PNC + self.layer_scale1(self.attention(self.norm1(x_PNC)))
        return x_PNC + self.layer_scale2(self.mlp(self.norm2(x_PNC)))


class Dinov2Patches(nn.Module):
    """Pictures to patches."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.projection = nn.Conv2d(3, config.width, config.patch_size, config.patch_size)

    def forward(self, pixels_P3SS: Tensor) -> Tensor:
        return self.projection(pixels_P3SS).flatten(2).transpose(1, 2)


class Dinov2Encoder(nn.Module):
    """The blocks, in a module of their own."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Dinov2Block(config) for _ in range(config.layers))


class Dinov2Embeddings(nn.Module):
    """A class token, patches and their learned positions; the mask token is of training, and never used here."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.side = config.picture_size // config.patch_size
        width, places = config.width, (config.positions or self.side) ** 2 + 1
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        if config.options.get("use_mask_token", True):
            self.mask_token = nn.Parameter(torch.zeros(1, width))
        self.patch_embeddings = Dinov2Patches(config)
        self.position_embeddings = nn.Parameter(torch.empty(1, places, width))

    def forward(self, pixels_P3SS: Tensor) -> Tensor:
        x_PNC = self.patch_embeddings(pixels_P3SS)
        class_1C, table_NC = self.position_embeddings[0].split([1, self.position_embeddings.shape[1] - 1])
        side = round(len(table_NC) ** 0.5)
        if side != self.side:
            table_NC = resized(table_NC.unflatten(0, (side, side)), self.side, self.side)
        first_P1C = (self.cls_token + class_1C).expand(len(x_PNC), -1, -1)
        return torch.cat([first_P1C.to(x_PNC.dtype), x_PNC + table_NC], 1)


class Dinov2(nn.Module):
    """The network: a hidden state of its patches."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.feature_layer = config.feature_layer
        self.embeddings = Dinov2Embeddings(config)
        self.encoder = Dinov2Encoder(config)
        self.layernorm = nn.LayerNorm(config.width, eps=config.options.get("layer_norm_eps", 1e-6))
        draw(self)
        for token in (self.embeddings.cls_token, self.embeddings.position_embeddings):
            nn.init.normal_(token, std=0.02)

    def forward(self, pixels_P3SS: Tensor) -> Tensor:
        x_PNC = self.embeddings(pixels_P3SS)
        return hidden_state(self.encoder.layer, x_PNC, self.feature_layer, self.layernorm)[:, 1:]
