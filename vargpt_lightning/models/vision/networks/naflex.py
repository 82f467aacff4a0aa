"""The network of the tower `siglip2_naflex`.

Legend: P seen pictures, S side of a patch, N feature tokens of a picture, G side of the table of positions, C channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vargpt_lightning.models.vision.networks.siglip import SiglipEmbeddings, SiglipEncoder
from vargpt_lightning.models.vision.networks.transformer import draw, hidden_state
from vargpt_lightning.models.vision.strips import Strips

if TYPE_CHECKING:
    from vargpt_lightning.models.core.vision_config import VisionConfig


class Naflex(nn.Module):
    """SigLIP's blocks over the patches of pictures in their own shape; the head that pools them is left out."""

    def __init__(self, config: VisionConfig, positions: int) -> None:
        super().__init__()
        self.layer = config.feature_layer
        patches = nn.Linear(3 * config.patch_size**2, config.width)
        self.embeddings = SiglipEmbeddings(patches, positions, config.width)
        self.encoder = SiglipEncoder(config)
        self.post_layernorm = nn.LayerNorm(config.width, eps=config.options.get("layer_norm_eps", 1e-6))
        draw(self)

    def forward(self, strips_P4SW: Tensor) -> Tensor:
        strips = Strips.read(strips_P4SW)
        x_PNC = self.embeddings.patch_embedding(strips.patches_PNSSC.flatten(2))
        x_PNC = x_PNC + places(self.embeddings.table_GGC, strips)
        blocks, norm = self.encoder.layers, self.post_layernorm
        features_PNC = hidden_state(blocks, x_PNC, self.layer, norm, strips.mask())
        return features_PNC.masked_fill(~strips.valid_PN[..., None], 0.0)


def places(table_GGC: Tensor, strips: Strips) -> Tensor:
    """Return the positions (P, N, C) of a table resized to each picture's grid: bilinear, with antialiasing."""
    rows_PNG = weights(strips.rows_PN, strips.height_P, len(table_GGC))
    columns_PNG = weights(strips.columns_PN, strips.width_P, len(table_GGC))
    both_PNG = (rows_PNG[..., :, None] * columns_PNG[..., None, :]).flatten(2)
    return (both_PNG @ table_GGC.flatten(0, 1).float()).to(table_GGC.dtype)


def weights(index_PN: Tensor, count_P: Tensor, side: int) -> Tensor:
    """Return what each of `side` entries adds to the places numbered so of `count_P`, (P, N, G).

    A triangle about the middle of each place, as wide as a place or an entry, whichever is wider.
    """
    step_P11 = (side / count_P.float())[:, None, None]
    middles_G = torch.arange(side, device=index_PN.device) + 0.5
    away_PNG = (middles_G - (index_PN[..., None] + 0.5) * step_P11).abs()
    found_PNG = (1 - away_PNG / step_P11.clamp_min(1)).clamp_min(0)
    return found_PNG / found_PNG.sum(-1, keepdim=True).clamp_min(1e-12)
