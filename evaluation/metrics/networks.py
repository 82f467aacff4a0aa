"""The networks whose features metrics compare: torch-fidelity's, CLIP, and EfficientNet-Lite0."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vargpt_lightning.evaluation.features.clip import ClipModel
from vargpt_lightning.evaluation.features.efficientnet import FEATURE_NAME, FEATURE_SIZE, EfficientNetFeatures
from vargpt_lightning.evaluation.features.inception import EXACT, INCEPTION, FeatureExtractor
from vargpt_lightning.evaluation.metrics.base import Features, as_images


class FidelityFeatures(Features):
    """One layer of a network of torch-fidelity, which follows the pictures to their device.

    Args:
        layer: "64", "192", "768", "2048" or "logits_unbiased" of Inception; "dinov2", or "fc2_relu" of VGG16.
        weights: a local file in torch-fidelity's format; None lets the library fetch its own.
        network: "inception-v3-compat", "dinov2-vit-l-14" or "vgg16".
        variant: the rule of resizing, "torch_fidelity", "clean" or "adm" (see `evaluation.features.inception`).
        layout: "contiguous" computes what torch-fidelity does bit by bit, "channels_last" is faster on processors.

    Raises:
        UserError: as `FeatureExtractor` does.
    """

    def __init__(
        self,
        layer: str = "2048",
        weights: Path | str | None = None,
        *,
        network: str = INCEPTION,
        variant: str = "torch_fidelity",
        layout: str = EXACT,
    ) -> None:
        file = None if weights is None else Path(weights)
        self.extractor = FeatureExtractor([layer], file, variant=variant, name=network, layout=layout)
        self.layer, self.variant, self.name = layer, variant, f"{network}, layer {layer}"
        self.size = self.extractor.sizes()[layer]

    @property
    def about(self) -> dict[str, Any]:
        return {**self.extractor.about, "layer": self.layer}

    def __call__(self, pictures_B3HW: Tensor) -> Tensor:
        if not len(pictures_B3HW):
            return torch.zeros(0, self.size)
        self.extractor.to(pictures_B3HW.device)
        if self.variant == "clean":  # resized one by one, before the network
            arrays = pictures_B3HW.permute(0, 2, 3, 1).cpu().numpy()
            pictures_B3HW = torch.stack([self.extractor.as_input(pixels_HWC) for pixels_HWC in arrays])
        return self.extractor(pictures_B3HW)[self.layer]


class EfficientNetLite0Features(Features):
    """The last convolution of EfficientNet-Lite0, averaged over places, (B, 1280).

    Its ImageNet weights come with a package. Figures compare with one another alone, and at one `resolution`.

    Args:
        resolution: every picture is resized to this many pixels square (bicubic).
    """

    name = FEATURE_NAME
    size = FEATURE_SIZE

    def __init__(self, resolution: int = 128) -> None:
        self.network = EfficientNetFeatures(resolution)

    @property
    def about(self) -> dict[str, Any]:
        return {"extractor": self.name, "variant": f"bicubic {self.network.size}"}

    def __call__(self, pictures_B3HW: Tensor) -> Tensor:
        self.network.to(pictures_B3HW.device)
        return self.network(as_images(pictures_B3HW))


class ClipFeatures(Features):
    """Unit embeddings of a CLIP model, (B, D): what CMMD compares.

    Args:
        model: from `open_clip_model` or `transformers_clip`.
    """

    def __init__(self, model: ClipModel) -> None:
        self.model = model
        self.name = f"CLIP {model.settings.get('model', '')}"
        self.size = self(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).shape[1]

    @property
    def about(self) -> dict[str, Any]:
        return {"extractor": "clip", **self.model.settings}

    def __call__(self, pictures_B3HW: Tensor) -> Tensor:
        if not len(pictures_B3HW):
            return torch.zeros(0, self.size)
        return torch.nn.functional.normalize(self.model.pictures(as_images(pictures_B3HW)), dim=-1)


class ClipExtractor:
    """CLIP embeddings as the store of features asks for them: pictures one by one, then batches of one size."""

    name = "CLIP"
    layers = ("clip",)

    def __init__(self, features: ClipFeatures) -> None:
        self.features, self.about = features, features.about

    def sizes(self) -> dict[str, int]:
        """Channels by layer."""
        return {"clip": self.features.size}

    def prepare(self, picture: Image.Image) -> Tensor:
        """One picture, (3, H, W) uint8: the model's own resize comes later."""
        return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)

    def __call__(self, batch_B3HW: Tensor) -> dict[str, Tensor]:
        """Unit embeddings, (B, D)."""
        return {"clip": self.features(batch_B3HW)}
