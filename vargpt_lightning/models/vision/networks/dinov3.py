"""The network of the tower `dinov3`.

Legend: P seen pictures, S picture side, N feature tokens of a picture, D width of a head, C channels.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vargpt_lightning.models.vision.networks.transformer import (
    ACTIVATIONS,
    LayerScale,
    Phases,
    attend,
    draw,
    hidden_state,
)

if TYPE_CHECKING:
    from vargpt_lightning.models.core.vision_config import VisionConfig


class Dinov3Attention(nn.Module):
    """Attention with positions that turn the heads of patches."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.heads = config.heads
        width, told = config.width, config.options
        self.q_proj = nn.Linear(width, width, bias=told.get("query_bias", True))
        self.k_proj = nn.Linear(width, width, bias=told.get("key_bias", False))
        self.v_proj = nn.Linear(width, width, bias=told.get("value_bias", True))
        self.o_proj = nn.Linear(width, width, bias=told.get("proj_bias", True))

    def forward(self, x_PNC: Tensor, phases: Phases) -> Tensor:
        return self.o_proj(attend(self.q_proj(x_PNC), self.k_proj(x_PNC), self.v_proj(x_PNC), self.heads, phases))


class Dinov3Mlp(nn.Module):
    """Linear, activation, linear; in the largest models the activation gates a third matrix's values."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width, inner, options = config.width, config.mlp, config.options
        bias = options.get("mlp_bias", True)
        if options.get("use_gated_mlp", False):
            self.gate_proj = nn.Linear(width, inner, bias=bias)
        self.up_proj, self.down_proj = nn.Linear(width, inner, bias=bias), nn.Linear(inner, width, bias=bias)
        self.activation = options.get("hidden_act", "gelu")

    def forward(self, x_PNC: Tensor) -> Tensor:
        activation, up_PNC = ACTIVATIONS[self.activation], self.up_proj(x_PNC)
        if hasattr(self, "gate_proj"):
            return self.down_proj(activation(self.gate_proj(x_PNC)) * up_PNC)
        return self.down_proj(activation(up_PNC))


class Dinov3Block(nn.Module):
    """Attention and feed-forward, each behind a normalisation and scaled channel by channel."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width, eps = config.width, config.options.get("layer_norm_eps", 1e-5)
        scale = config.options.get("layerscale_value", 1.0)
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=eps), nn.LayerNorm(width, eps=eps)
        self.attention, self.mlp = Dinov3Attention(config), Dinov3Mlp(config)
        self.layer_scale1, self.layer_scale2 = LayerScale(width, scale), LayerScale(width, scale)

    def forward(self, x_PNC: Tensor, phases: Phases) -> Tensor:
        x_PNC = x_PNC + self.layer_scale1(self.attention(self.norm1(x_PNC), phases))
        return x_PNC + self.layer_scale2(self.mlp(self.norm2(x_PNC)))


class Dinov3Embeddings(nn.Module):
    """A class token, registers and patches; the mask token is of training, and never used here."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width, registers = config.width, config.options.get("num_register_tokens", 0)
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.register_tokens = nn.Parameter(torch.empty(1, registers, width))
        self.patch_embeddings = nn.Conv2d(3, width, config.patch_size, config.patch_size)

    def forward(self, pixels_P3SS: Tensor) -> Tensor:
        x_PNC = self.patch_embeddings(pixels_P3SS).flatten(2).transpose(1, 2)
        first = torch.cat([self.cls_token, self.register_tokens], 1).expand(len(x_PNC), -1, -1)
        return torch.cat([first.to(x_PNC.dtype), x_PNC], 1)


class Dinov3(nn.Module):
    """The network: a hidden state of its patches.

    Positions are the middles of patches, from -1 to 1 over the picture whatever its size; where training moves and
    stretches them at random, this does not.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.feature_layer, self.first = config.feature_layer, 1 + config.options.get("num_register_tokens", 0)
        self.side, self.head = config.picture_size // config.patch_size, config.width // config.heads
        self.base = float(config.options.get("rope_theta", 100.0))
        self.embeddings = Dinov3Embeddings(config)
        self.layer = nn.ModuleList(Dinov3Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width, eps=config.options.get("layer_norm_eps", 1e-5))
        draw(self)
        for token in (self.embeddings.cls_token, self.embeddings.register_tokens):
            nn.init.normal_(token, std=0.02)

    def forward(self, pixels_P3SS: Tensor) -> Tensor:
        x_PNC, phases = self.embeddings(pixels_P3SS), self.phases(pixels_P3SS.device)
        return hidden_state(self.layer, x_PNC, self.feature_layer, self.norm, phases)[:, self.first :]

    def phases(self, device: torch.device) -> Phases:
        """Return how the patches' heads are turned: a quarter of them by rows, a quarter by columns, twice."""
        middles_S = torch.arange(0.5, self.side, dtype=torch.float32, device=device) / self.side * 2 - 1
        places_N2 = torch.stack(torch.meshgrid(middles_S, middles_S, indexing="ij"), -1).flatten(0, 1)
        steps = torch.arange(0, 1, 4 / self.head, dtype=torch.float32, device=device)
        angles_ND = (2 * math.pi * places_N2[..., None] / self.base**steps).flatten(1).tile(2)
        return Phases.of(angles_ND)
