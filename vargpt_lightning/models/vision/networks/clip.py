"""The network of the tower `clip`.

Legend: P seen pictures, S picture side, N feature tokens of a picture, C channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

if TYPE_CHECKING:
    from vargpt_lightning.models.core.config import VisionConfig


class ClipTower(nn.Module):
    """The CLIP vision transformer; its feature is a hidden state without the class token (LLaVA-1.5, section 3)."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        assert config.feature_layer is not None  # as `check` has it
        self.feature_layer = config.feature_layer
        clip = CLIPVisionConfig(
            hidden_size=config.width,
            intermediate_size=config.mlp,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            image_size=config.picture_size,
            patch_size=config.patch_size,
            **config.options,
        )
        clip._attn_implementation = "sdpa"
        self.model = CLIPVisionModel(clip)

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer's layers."""
        layers: nn.ModuleList = self.model.encoder.layers
        return layers

    def restore_constants(self) -> None:
        """Number the positions again, which no checkpoint holds, on the device of the weights."""
        embeddings = self.model.embeddings
        count, device = embeddings.position_embedding.num_embeddings, embeddings.position_embedding.weight.device
        embeddings.register_buffer("position_ids", torch.arange(count, device=device)[None], persistent=False)

    def forward(self, pixels_P3SS: Tensor) -> Tensor:
        """Return patch features (P, N, C) of pictures (P, 3, S, S) normalised with CLIP's mean and deviation."""
        output = self.model(pixel_values=pixels_P3SS, output_hidden_states=True)
        return output.hidden_states[self.feature_layer][:, 1:]
