"""Resize modes: a network's square of a picture as others make it: VAR, CLIP, LLaVA-1.5, SigLIP, DINOv2, DINOv3.

Each gives the pixels, to the last level, that the reference code gives: VAR's `utils/data.py` (torchvision on Pillow),
transformers' processors (their Pillow variants, but for DINOv3, which has none) and LLaVA's `expand2square`.

Shape suffixes: H height, W width, C colours.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import Literal

import numpy as np
from PIL import Image

from vargpt_lightning.data.images.picture_files import PictureError, bounded

Resizing = Literal["pillow", "torch"]
VAR_MARGIN = 1.125  # VAR resizes the short side to this multiple of the size, and crops the rest away
MOST_PIXELS = 2**27  # a picture one pixel high and very wide would otherwise grow to gigabytes


def fit_var(image: Image.Image, size: int, crop: random.Random | None = None, *, flip: bool = False) -> Image.Image:
    """Return VAR's `size` x `size` crop of an RGB picture: the centre's, or a random one's where `crop` says which.

    The short side is first resized to round(1.125 x size) with the Lanczos filter. With `flip` and `crop` every second
    picture is mirrored before. Raises PictureError for a picture so narrow that it would not fit into memory.
    """
    if crop is not None and flip and crop.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = _short_side(image, round(VAR_MARGIN * size), Image.Resampling.LANCZOS)
    spare_x, spare_y = image.width - size, image.height - size
    if crop is None:
        left, top = round(spare_x / 2), round(spare_y / 2)
    else:
        top, left = crop.randrange(spare_y + 1), crop.randrange(spare_x + 1)
    return image.crop((left, top, left + size, top + size))


def fit_clip(image: Image.Image, size: int) -> Image.Image:
    """Return an RGB picture as CLIP is given it: short side resized to `size` (bicubic), the centre cut out.

    Raises PictureError for a picture so narrow that it would not fit into memory.
    """
    image = _short_side(image, size, Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


def fit_llava(image: Image.Image, size: int, mean: Sequence[float]) -> Image.Image:
    """Return an RGB picture as LLaVA-1.5 gives it to CLIP: padded to a square with the mean colour, then as CLIP does.

    `mean` has the colours in [0, 1].
    """
    image = bounded(image, size)
    width, height = image.size
    if width != height:
        side = max(width, height)
        ground = Image.new("RGB", (side, side), tuple(int(value * 255) for value in mean))
        ground.paste(image, ((side - width) // 2, (side - height) // 2))
        image = ground
    return fit_clip(image, size)


def fit_siglip(image: Image.Image, size: int) -> Image.Image:
    """Return an RGB picture as SigLIP is given it: both sides resized to `size` (bicubic), whatever its shape."""
    return image.resize((size, size), Image.Resampling.BICUBIC)


def fit_dinov2(image: Image.Image, size: int) -> Image.Image:
    """Return an RGB picture as DINOv2 is given it: short side resized to 8/7 of `size` (bicubic), the centre cut out.

    The published processors resize to 256 pixels and take 224. Raises PictureError for a picture so narrow that it
    would not fit into memory.
    """
    image = _short_side(image, round(size * 8 / 7), Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


def fit_dinov3(image: Image.Image, size: int) -> np.ndarray:
    """Return an RGB picture as DINOv3 is given it: both sides resized to `size` (bilinear), (H, W, C) in 32 bits.

    Its levels, of 0 to 255, are not rounded.
    """
    import torch  # here: experiments are checked without it

    pixels_CHW = torch.from_numpy(np.array(image)).permute(2, 0, 1).float()
    resize = torch.nn.functional.interpolate
    fitted_CHW = resize(pixels_CHW[None], (size, size), mode="bilinear", antialias=True)[0]
    return fitted_CHW.permute(1, 2, 0).numpy()


def crop_of(key: str, variant: int) -> random.Random | None:
    """Return what chooses the crop of a picture's variant, from the two alone; None, the centre, for variant 0."""
    if variant == 0:
        return None
    digest = hashlib.sha256(f"crop:{key}:{variant}".encode("utf-8", "surrogatepass")).digest()
    return random.Random(int.from_bytes(digest[:8], "big"))


def _short_side(image: Image.Image, short: int, filter_: Image.Resampling) -> Image.Image:
    """Resize to a short side of so many pixels; the long side is rounded down, as torchvision does."""
    width, height = image.size
    long = int(short * max(width, height) / min(width, height))
    _check_pixels(image, short * long)
    size = (short, long) if width <= height else (long, short)
    return image if image.size == size else image.resize(size, filter_)


def _check_pixels(image: Image.Image, pixels: int) -> None:
    if pixels > MOST_PIXELS:
        raise PictureError(
            f"picture of {image.width} x {image.height} pixels: resized it would have {pixels:,}; "
            f"expected at most {MOST_PIXELS:,}"
        )
