"""Pictures of tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:  # parts of samplers are known without torch
    from torch import Tensor


def to_images(pictures_B3HW: Tensor) -> list[Image.Image]:
    """Return pictures in [-1, 1] as PIL images."""
    levels = ((pictures_B3HW.detach().float() + 1) * 127.5).round().clamp(0, 255).byte()
    return [Image.fromarray(np.ascontiguousarray(one)) for one in levels.permute(0, 2, 3, 1).cpu().numpy()]
