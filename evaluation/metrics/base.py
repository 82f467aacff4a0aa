"""What the metrics of pictures share: pictures as bytes, a network's features, one value of several.

Shapes: B pictures, H and W pixels, N rows of features, D feature channels.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from vargpt_lightning.distributed.metric import ExactMetric
from vargpt_lightning.evaluation.features.finite import check_rows
from vargpt_lightning.utils.errors import UserError

ValueRange = tuple[float, float]


class Features:
    """What turns pictures into features; subclass it for a network of your own.

    A metric gives it (B, 3, H, W) uint8, on any device, and takes (B, `size`) numbers, on any device.
    """

    name = "features"
    size: int

    @property
    def about(self) -> dict[str, Any]:
        """What the features depend on: saved statistics have to agree with it."""
        return {}

    def __call__(self, pictures_B3HW: Tensor) -> Tensor:
        """Return features, (B, D)."""
        raise NotImplementedError


class Given(Features):
    """Features that are there already: a metric's `update` takes them, (B, D), in place of pictures.

    Args:
        size: D, the number of channels.
    """

    name = "given"

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, pictures_B3HW: Tensor) -> Tensor:
        return pictures_B3HW


class PictureMetric(ExactMetric):
    """A metric whose `compute` is one value of those that `compute_all` has.

    Args:
        value_range: what black and white are in pictures of floats; uint8 is taken as it is.
        settings: torchmetrics' own, such as `sync_on_compute`.
    """

    headline: str

    def __init__(self, value_range: ValueRange = (0.0, 1.0), **settings: Any) -> None:
        super().__init__(**settings)
        self.value_range = value_range

    def compute_all(self) -> dict[str, float]:
        """Return all values, of all processes; `compute` returns one of them."""
        self.sync(dist_sync_fn=self.dist_sync_fn, should_sync=self.sync_on_compute)
        try:
            return self._values()
        finally:
            self.unsync(should_unsync=self._is_synced)

    def figures(self) -> dict[str, float]:
        """The name of `compute_all` in earlier versions."""
        warnings.warn("figures is compute_all now; the old name goes with the next version", DeprecationWarning, 2)
        return self.compute_all()

    def compute(self) -> Tensor:
        """Return the value that the metric is named for, a scalar in float64."""
        return self.scalar(self._values()[self.headline])

    def _values(self) -> dict[str, float]:
        raise NotImplementedError


class FeatureMetric(PictureMetric):
    """A metric of pictures' features.

    Args:
        features: see `Features`. A network is no part of the metric as a module: a checkpoint does not hold it.
        value_range: what black and white are in pictures of floats; uint8 is taken as it is.
        settings: torchmetrics' own.
    """

    def __init__(self, features: Features, value_range: ValueRange = (0.0, 1.0), **settings: Any) -> None:
        super().__init__(value_range, **settings)
        self._features = (features,)  # a module finds no other module in a tuple

    @property
    def features(self) -> Features:
        """What turns pictures into features."""
        return self._features[0]

    def measured(self, pictures: Tensor) -> Tensor:
        """Return the features of pictures, (B, D).

        Raises:
            UserError: what is given are no pictures, or their features no numbers.
        """
        features = self.features
        found = features(pictures if isinstance(features, Given) else as_bytes(pictures, self.value_range))
        if found.ndim != 2 or found.shape[1] != features.size:
            raise UserError(f"features of shape {tuple(found.shape)}; expected (B, {features.size})")
        if not isinstance(features, Given):
            check_rows(found, [f"picture {place} of the batch" for place in range(len(found))], features.name)
        return found


class SetMetric(FeatureMetric):
    """A metric of whole sets of pictures: a batch counts towards it, and has no value of its own."""

    def forward(self, *arguments: Any, **settings: Any) -> Tensor:
        """Count a batch as `update` does; the batch's own value is NaN."""
        self.update(*arguments, **settings)
        own = self.scalar(float("nan"))
        self._forward_cache = own  # type: ignore[assignment]
        return own


class TwoSets(SetMetric):
    """A metric that compares all features of drawn pictures with all of real ones: it keeps D float32 a picture."""

    drawn: list[Tensor]
    real: list[Tensor]

    def __init__(self, features: Features, value_range: ValueRange = (0.0, 1.0), **settings: Any) -> None:
        super().__init__(features, value_range, **settings)
        self.add_rows("drawn", features.size)
        self.add_rows("real", features.size)

    def update(self, pictures: Tensor, real: bool) -> None:
        """Count drawn or real pictures, (B, 3, H, W) uint8 or floats in `value_range`."""
        kept = self.real if real else self.drawn
        kept.append(self.measured(pictures).to(self.device, torch.float32))

    def both(self, measure: Callable[..., dict[str, float]], **settings: Any) -> dict[str, float]:
        """Return what a function says of drawn and real features, each (N, D) on the CPU."""
        return measure(self.rows("drawn").cpu(), self.rows("real").cpu(), **settings)


def as_bytes(pictures: Tensor, value_range: ValueRange = (0.0, 1.0)) -> Tensor:
    """Return pictures as uint8, rounded as drawings are when they are saved.

    Args:
        pictures: (B, 3, H, W), uint8 or floats.
        value_range: what black and white are in floats.

    Raises:
        UserError: other shapes or types, or floats that are no numbers.
    """
    if pictures.ndim != 4 or pictures.shape[1] != 3:
        raise UserError(f"pictures of shape {tuple(pictures.shape)}; expected (B, 3, H, W)")
    if pictures.dtype == torch.uint8:
        return pictures
    low, high = value_range
    if not pictures.is_floating_point() or not high > low:
        raise UserError(f"pictures of {pictures.dtype} from {low} to {high}; expected uint8, or floats in a range")
    if not bool(pictures.isfinite().all()):
        raise UserError("the pictures hold NaN or infinity; expected numbers")
    return ((pictures.float() - low) * (255 / (high - low))).round().clamp(0, 255).byte()


def as_images(pictures_B3HW: Tensor) -> list[Image.Image]:
    """Return pictures of uint8 as Pillow has them."""
    return [Image.fromarray(pixels_HWC) for pixels_HWC in pictures_B3HW.permute(0, 2, 3, 1).cpu().numpy()]
