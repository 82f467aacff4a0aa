"""The name of a thing's shape, by features of a frozen network against renderings of all shapes in all colours.

Shapes: N pictures, C channels of features, K shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from vargpt_lightning.data.openmoji.pictures import on_white
from vargpt_lightning.data.scenes.shapes import COLOURS, SHAPES, sprite
from vargpt_lightning.evaluation.composition.objects import cut_out, regions
from vargpt_lightning.evaluation.features.efficientnet import EfficientNetFeatures, FeatureFunction

SIZES = (23, 42)  # of the renderings' longer side, in pixels: small things and single ones
BLURS = (0.0, 0.7, 1.2)  # drawings are softer than renderings
LEAST_SURE = 0.5  # probability of the likeliest shape below which there is no name
_RIDGE = 0.1  # share of the mean variance that is added to every direction's


class ShapeNames:
    """Names things cut out of pictures: linear discriminants between the renderings' features.

    All shapes have the same covariance of features, that of the renderings around their shape's mean, so that what
    colours, sizes and softness change does not count, and what tells shapes apart does.

    Args:
        features: pictures to features (N, C).
    """

    def __init__(self, features: FeatureFunction) -> None:
        self.features = features
        pictures = [each for shape in SHAPES for each in _renderings(shape.name)]
        x_KRC = features(pictures).double().view(len(SHAPES), -1, features([pictures[0]]).shape[1])
        mean_KC = x_KRC.mean(dim=1)
        inside_NC = (x_KRC - mean_KC[:, None]).flatten(0, 1)
        covariance_CC = inside_NC.T @ inside_NC / len(inside_NC)
        ridge = _RIDGE * covariance_CC.diagonal().mean()
        covariance_CC += ridge * torch.eye(len(covariance_CC), dtype=torch.float64)
        self.weight_CK = torch.linalg.solve(covariance_CC, mean_KC.T)
        self.bias_K = -0.5 * (mean_KC.T * self.weight_CK).sum(dim=0)

    def probabilities(self, things: Sequence[Image.Image]) -> Tensor:
        """Return how likely each shape is for each thing: (N, K), each row's sum 1."""
        return (self.features(things).double() @ self.weight_CK + self.bias_K).softmax(dim=1)

    def __call__(self, things: Sequence[Image.Image]) -> list[str | None]:
        """Return each thing's name, None where the likeliest is not likely."""
        if not things:
            return []
        sure_N, place_N = self.probabilities(things).max(dim=1)
        return [
            SHAPES[place].name if sure >= LEAST_SURE else None
            for sure, place in zip(sure_N.tolist(), place_N.tolist(), strict=True)
        ]


def _renderings(name: str) -> list[Image.Image]:
    shape = next(each for each in SHAPES if each.name == name)
    found = []
    for size in SIZES:
        for colour in COLOURS:
            sprite_HW3 = on_white(sprite(shape, colour, size))
            canvas_HW3 = np.full((size + 8, size + 8, 3), 255, np.uint8)
            canvas_HW3[4 : 4 + sprite_HW3.shape[0], 4 : 4 + sprite_HW3.shape[1]] = sprite_HW3
            for blur in BLURS:
                image = Image.fromarray(canvas_HW3).filter(ImageFilter.GaussianBlur(blur))
                pixels_HW3 = np.asarray(image)
                found.append(cut_out(pixels_HW3, max(regions(pixels_HW3), key=lambda each: int(each.mask_HW.sum()))))
    return found


@cache
def shape_names() -> ShapeNames:
    """Return the names by EfficientNet-Lite0's features, made once in a process."""
    return ShapeNames(EfficientNetFeatures())
