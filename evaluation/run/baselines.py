"""Pictures that nobody drew, for figures to be read beside: blurred ones and noise; and errors of reconstructions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image
from torchvision.transforms.functional import gaussian_blur

from vargpt_lightning.evaluation.features.efficientnet import pixels


def blur(picture: Image.Image, sigma: float) -> Image.Image:
    """The picture under a Gaussian blur of `sigma` pixels, edges mirrored."""
    x_13HW = pixels([picture])
    # Mirroring cannot reach beyond the picture: the kernel of a tiny picture is cut.
    reach = min(math.ceil(4 * sigma), min(x_13HW.shape[-2:]) - 1)
    blurred = gaussian_blur(x_13HW, [2 * reach + 1] * 2, [sigma, sigma])
    return Image.fromarray(blurred[0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy())


def noise(size: tuple[int, int], count: int, seed: int = 0) -> list[Image.Image]:
    """Pictures of uniform noise, (width, height) pixels."""
    generator = np.random.default_rng(seed)
    return [Image.fromarray(generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)) for _ in range(count)]


def squared_error(real: Sequence[Image.Image], other: Sequence[Image.Image]) -> tuple[float, int]:
    """Sum of squared pixel differences (pixels in [0, 1]) and how many numbers were compared."""
    total, count = 0.0, 0
    for one, two in zip(real, other, strict=True):
        difference = (pixels([one]) - pixels([two])) / 255
        total, count = total + difference.square().sum().item(), count + difference.numel()
    return total, count
