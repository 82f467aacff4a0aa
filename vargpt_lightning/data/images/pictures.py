"""Encoded picture files turned into tensors: decoded, made square, varied a little, scaled.

Shape suffixes: B pictures, C colours, H height, W width (HW square here, but for `native_shapes` and `rectangles`).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vargpt_lightning.data.images import shared_memory
from vargpt_lightning.data.images.fast_resize import fit_fast
from vargpt_lightning.data.images.jpeg import decode_jpeg
from vargpt_lightning.data.images.native_shapes import NATIVE_FITS, fitted, picture_of, strip
from vargpt_lightning.data.images.picture_files import MAX_PIXELS, PictureError, bounded, decode_picture
from vargpt_lightning.data.images.rectangles import RECTANGULAR, fit_rectangle, larger
from vargpt_lightning.data.images.resize_modes import (
    Resizing,
    crop_of,
    fit_clip,
    fit_dinov2,
    fit_dinov3,
    fit_llava,
    fit_siglip,
    fit_var,
)
from vargpt_lightning.data.images.shapes import Shape
from vargpt_lightning.utils.errors import UserError

__all__ = [
    "ENDLESS",
    "Fit",
    "LevelReader",
    "PictureError",
    "PictureReader",
    "decode_picture",
    "make_square",
    "scale_pictures",
    "vary",
]

Fit = Literal["pad", "crop", "var", "clip", "llava", "siglip", "dinov2", "dinov3", "naflex", "qwen2_vl"]
RESIZE_MODES = get_args(Fit)
KEEP_SQUARES = ("pad", "crop", "clip", "llava", "siglip")
"""Resize modes that leave a picture as it is that has the size already, in bytes."""
ENDLESS = 2**31  # variants of a picture that is to be another one each time


def make_square(image: Image.Image, size: int, fit: Literal["pad", "crop"] = "crop") -> Image.Image:
    """Return the picture at size x size: "crop" keeps the middle square, "pad" adds white at the short sides."""
    image = bounded(image, size) if fit == "pad" else image
    width, height = image.size
    if width != height:
        side = min(width, height) if fit == "crop" else max(width, height)
        square = Image.new("RGB", (side, side), "white")
        square.paste(image, ((side - width) // 2, (side - height) // 2))
        image = square
    if image.width == size:
        return image
    # the mean over the covered area is what antialiasing means when shrinking by whole factors
    filter_ = Image.Resampling.BOX if image.width % size == 0 else Image.Resampling.BICUBIC
    return image.resize((size, size), filter_)


def vary(image: Image.Image, key: str, variant: int, *, flip: bool = True) -> Image.Image:
    """Return a mild variant of a picture on white: flipped, turned up to 10 degrees, scaled and shifted a little.

    Variant 0 is the picture itself; every other one follows from `key` and its number alone. Colours do not change.
    """
    if variant == 0:
        return image
    rng = random.Random(int.from_bytes(hashlib.sha256(f"{key}:{variant}".encode()).digest()[:8], "big"))
    if flip and variant % 2:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    angle, zoom = np.deg2rad(rng.uniform(-10, 10)), 1 / rng.uniform(0.85, 1.08)
    shift_x, shift_y = (rng.uniform(-0.05, 0.05) * side for side in image.size)
    cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
    middle_x, middle_y = image.width / 2, image.height / 2
    # output to input coordinates, turning about the middle
    offset_x = middle_x - cos * (middle_x + shift_x) + sin * (middle_y + shift_y)
    offset_y = middle_y - sin * (middle_x + shift_x) - cos * (middle_y + shift_y)
    matrix = (cos, -sin, offset_x, sin, cos, offset_y)
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC, fillcolor="white")


@dataclass(frozen=True)
class PictureReader:
    """Reads picture files as (C, H, W) float tensors of `size` pixels, (value in [0, 1] - mean) / std by colour.

    The defaults give values in [-1, 1], the range of the image tokenizer. `fit` is the resize mode, which makes
    pictures square: "crop" and "pad" as `make_square` does; others as `resize_modes` says. "naflex" and "qwen2_vl" keep
    a picture's shape: `size` is a patch's side, and what is read a strip of them with marks in a fourth channel, of
    `tokens` tokens (see `native_shapes`). A `size` of two numbers is height and width (see `rectangles`). With
    `variants` above 1, variant v > 0 is a mild change of the picture (see `vary`); with "var" it is a random crop,
    which follows from the picture's key and v. Pictures of more than `max_pixels` count as broken.
    """

    size: int | Shape
    mean: Sequence[float] = (0.5, 0.5, 0.5)
    std: Sequence[float] = (0.5, 0.5, 0.5)
    fit: Fit = "crop"
    variants: int = 1
    flip: bool = True
    max_pixels: int = MAX_PIXELS
    tokens: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) and self.size[0] == self.size[1]:
            object.__setattr__(self, "size", self.size[0])
        if self.fit in NATIVE_FITS and self.tokens < 1:
            raise UserError(f"picture reader: fit {self.fit!r} with {self.tokens} tokens; expected 1 or more")
        if min(self.shape) < 1 or self.variants < 1:
            raise UserError(f"picture reader: size {self.size}, variants {self.variants}; expected 1 or more of each")
        if self.fit not in RESIZE_MODES:
            raise UserError(f"picture reader: fit {self.fit!r}; expected one of {', '.join(RESIZE_MODES)}")
        if self.shape[0] != self.shape[1] and self.fit not in RECTANGULAR:
            expected = f"one of {', '.join(RECTANGULAR)} for pictures that are no squares"
            raise UserError(f"picture reader: fit {self.fit!r} with size {self.size}; expected {expected}")

    @property
    def shape(self) -> Shape:
        """Height and width in pixels; of native shapes those of a patch."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    @property
    def side(self) -> int:
        """The side of squares, or of a patch."""
        assert isinstance(self.size, int)
        return self.size

    def read(self, data: bytes | None, key: str = "picture", variant: int = 0) -> Tensor:
        """Return the picture as a (C, H, W) tensor; raises PictureError when it cannot be decoded."""
        return self.scale(torch.from_numpy(self.levels(data, key, variant)))

    def levels(
        self,
        data: bytes | None,
        key: str = "picture",
        variant: int = 0,
        place: Callable[[tuple[int, ...]], np.ndarray | None] | None = None,
        resizing: Resizing = "pillow",
    ) -> np.ndarray:
        """Return a picture file as `pixels` does, where `place` says; raises PictureError when it cannot be decoded.

        With `resizing` "torch" plain JPEG files that are not varied are resized by `fit_fast` where it can.
        """
        shape = (*self.shape, 3)

        def final(height: int, width: int) -> np.ndarray | None:
            return place(shape) if place and ready(height, width) else None

        def ready(height: int, width: int) -> bool:
            return variant == 0 and self.fit in KEEP_SQUARES and (height, width) == self.shape

        pixels_HWC = decode_jpeg(data, self.max_pixels, final)
        if pixels_HWC is None:
            return self.pixels(decode_picture(data, key, self.max_pixels), key, variant)
        if ready(*pixels_HWC.shape[:2]):
            return pixels_HWC
        if resizing == "torch" and variant == 0 and isinstance(self.size, int):
            fitted_HWC = fit_fast(pixels_HWC, self.size, self.fit, self.mean)
            if fitted_HWC is not None:
                return fitted_HWC
        return self.pixels(Image.fromarray(pixels_HWC), key, variant)

    def to_tensor(self, image: Image.Image, key: str = "picture", variant: int = 0) -> Tensor:
        """Return a decoded picture as a (C, H, W) tensor; raises PictureError for one too narrow to be made square."""
        return self.scale(torch.from_numpy(self.pixels(image, key, variant)))

    def pixels(self, image: Image.Image, key: str = "picture", variant: int = 0) -> np.ndarray:
        """Return a decoded picture made square: (H, W, C), which `scale` makes a tensor for a network of.

        It is uint8 but for "dinov3", whose levels are not whole; of pictures in their own shape it is the strip.
        """
        image = image if image.mode == "RGB" else image.convert("RGB")
        if self.fit in NATIVE_FITS:
            return strip(np.array(self._native(image, key, variant)), self.fit, self.side, self.tokens)
        if not isinstance(self.size, int):
            return np.array(self._rectangle(image, self.size, key, variant))
        if self.fit == "var":
            return np.array(fit_var(image, self.size, crop_of(key, variant), flip=self.flip))
        if variant:
            # vary at a size not far above the one wanted: fine enough for clean edges, and no slower than it must be
            side = min(max(image.size), 2 * self.size)
            image = vary(self._square(image, side), key, variant, flip=self.flip)
        if self.fit == "dinov3":
            return fit_dinov3(image, self.size)
        return np.array(self._square(image, self.size))

    def scale(self, pixels_HWC: Tensor) -> Tensor:
        """Return pixels (..., H, W, C) in 0 to 255 as (..., C, H, W), normalised, on the device where they are.

        A fourth channel stays as it is.
        """
        device = pixels_HWC.device
        mean_C, std_C = (torch.tensor(each, dtype=torch.float32, device=device) for each in (self.mean, self.std))
        colours_HWC, marks_HWC = pixels_HWC[..., :3], pixels_HWC[..., 3:]
        scaled_HWC = (colours_HWC.float() / 255.0 - mean_C) / std_C
        if marks_HWC.shape[-1]:
            scaled_HWC = torch.cat([torch.where(marks_HWC > 0, scaled_HWC, 0.0), marks_HWC.float()], -1)
        return scaled_HWC.movedim(-1, -3).contiguous()

    def shown(self, data: bytes | None, key: str = "picture") -> np.ndarray:
        """Return the picture as the network is shown it, (H, W, 3), uint8; raises PictureError as `read` does."""
        levels_HWC = self.levels(data, key)
        if self.fit in NATIVE_FITS:
            return picture_of(levels_HWC, self.fit)
        return levels_HWC if levels_HWC.dtype == np.uint8 else levels_HWC.round().clip(0, 255).astype(np.uint8)

    def _native(self, image: Image.Image, key: str, variant: int) -> Image.Image:
        image = fitted(image, self.fit, self.side, self.tokens)
        return vary(image, key, variant, flip=self.flip)

    def _rectangle(self, image: Image.Image, shape: Shape, key: str, variant: int) -> Image.Image:
        if variant and self.fit != "var":
            image = vary(fit_rectangle(image, larger(shape, image), self.fit), key, variant, flip=self.flip)
        return fit_rectangle(image, shape, self.fit, crop_of(key, variant), flip=self.flip)

    def _square(self, image: Image.Image, side: int) -> Image.Image:
        if self.fit == "clip":
            return fit_clip(image, side)
        if self.fit == "llava":
            return fit_llava(image, side, self.mean)
        if self.fit in ("siglip", "dinov3"):
            return fit_siglip(image, side)
        if self.fit == "dinov2":
            return fit_dinov2(image, side)
        return make_square(image, side, "pad" if self.fit == "pad" else "crop")

    def variants_of(self, key: str) -> int:
        """How many variants there are of a picture."""
        return self.variants


@dataclass(frozen=True)
class LevelReader:
    """Reads pictures as `reader` does, as bytes still: (H, W, C), uint8, for `scale_pictures` after their way.

    From a worker to the training process, and from there to a device, they are a quarter of the size. `resizing` says
    by what they are resized: "pillow", or faster by "torch", with a level more or less here and there (see `fit_fast`).
    Levels that are not whole are scaled at once.
    """

    reader: PictureReader
    resizing: Resizing = "pillow"

    def read(self, data: bytes | None, key: str = "picture", variant: int = 0) -> np.ndarray | Tensor:
        """Return the picture as an (H, W, C) array; raises PictureError when it cannot be decoded."""
        levels_HWC = self.reader.levels(data, key, variant, shared_memory.picture, self.resizing)
        return levels_HWC if levels_HWC.dtype == np.uint8 else self.reader.scale(torch.from_numpy(levels_HWC))

    def variants_of(self, key: str) -> int:
        """How many variants there are of a picture."""
        return self.reader.variants_of(key)


def scale_pictures(batch: Mapping[str, Any], readers: Mapping[str, PictureReader]) -> dict[str, Any]:
    """Return the batch with pictures that are bytes still, by the names in it, made into what networks take."""
    late = {name: reader for name, reader in readers.items() if name in batch and batch[name].dtype == torch.uint8}
    return {**batch, **{name: reader.scale(batch[name]) for name, reader in late.items()}}
