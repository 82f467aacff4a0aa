"""The network of the tower `siglip`; its blocks are also those of `siglip2_naflex`.

Legend: P seen pictures, S picture side, N feature tokens of a picture, C channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from vargpt_lightning.models.vision.networks.transformer import Mlp, attend, draw, hidden_state, resized

if TYPE_CHECKING:
    from vargpt_lightning.models.core.vision_config import VisionConfig


class SiglipAttention(nn.Module):
    """Attention without positions."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.k_proj, self.v_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.q_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x_PNC: Tensor, mask: Any = None) -> Tensor:
        seen_PNC = attend(self.q_proj(x_PNC), self.k_proj(x_PNC), self.v_proj(x_PNC), self.heads, None, mask)
        return self.out_proj(seen_PNC)


class SiglipBlock(nn.Module):
    """Attention and feed-forward, each behind a normalisation."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width, eps = config.width, config.options.get("layer_norm_eps", 1e-6)
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(width, eps=eps), nn.LayerNorm(width, eps=eps)
        self.self_attn = SiglipAttention(width, config.heads)
        self.mlp = Mlp(width, config.mlp, config.options.get("hidden_act", "gelu_pytorch_tanh"))

    def forward(self, x_PNC: Tensor, mask: Any = None) -> Tensor:
        x_PNC = x_PNC + self.self_attn(self.layer_norm1(x_PNC), mask)
        return x_PNC + self.mlp(self.layer_norm2(x_PNC))


class SiglipEncoder(nn.Module):
    """The blocks, in a module of their own."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(SiglipBlock(config) for _ in range(config.layers))


class SiglipEmbeddings(nn.Module):
    """Patches and their learned positions."""

    def __init__(self, patches: nn.Module, positions: int, width: int) -> None:
        super().__init__()
        self.patch_embedding = patches
        self.position_embedding = nn.Embedding(positions**2, width)

    @property
    def table_GGC(self) -> Tensor:
        """The learned positions as a square."""
        side = round(self.position_embedding.num_embeddings**0.5)
        return self.position_embedding.weight.unflatten(0, (side, side))


class Siglip(nn.Module):
    """The network: a hidden state of its patches; the head that pools them is left out."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.layer = config.feature_layer
        self.side = config.picture_size // config.patch_size
        patches = nn.Conv2d(3, config.width, config.patch_size, config.patch_size)
        self.embeddings = SiglipEmbeddings(patches, config.positions or self.side, config.width)
        self.encoder = SiglipEncoder(config)
        self.post_layernorm = nn.LayerNorm(config.width, eps=config.options.get("layer_norm_eps", 1e-6))
        draw(self)

    def forward(self, pixels_P3SS: Tensor) -> Tensor:
        x_PNC = self.embeddings.patch_embedding(pixels_P3SS).flatten(2).transpose(1, 2)
        table_GGC, side = self.embeddings.table_GGC, self.side
        places_NC = table_GGC.flatten(0, 1) if len(table_GGC) == side else resized(table_GGC, side, side)
        return hidden_state(self.encoder.layers, x_PNC + places_NC, self.layer, self.post_layernorm)
