"""The sizes of pictures that a model draws, in words: width x height in pixels, or width : height."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vargpt_lightning.data.images.shapes import Shape, nearest_size
from vargpt_lightning.models.core.config import TokenizerConfig
from vargpt_lightning.utils.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

_SIZE = re.compile(r"\s*(\d{1,6})\s*([x×:/])\s*(\d{1,6})\s*")
AUTO = "auto"
"""The usual size, or that of a picture that is to be changed."""
_NEAR = 0.01
"""The part by which an aspect ratio may differ from the one that is asked for."""


def size_name(shape: Shape) -> str:
    """Return a size in words, as OpenAI's API has it: width x height."""
    height, width = shape
    return f"{width}x{height}"


def size_names(tokenizer: TokenizerConfig) -> list[str]:
    """Return the sizes of pictures that a model draws, the usual one first."""
    return [size_name(shape) for shape in tokenizer.picture_shapes]


def size_like(image: Image.Image, tokenizer: TokenizerConfig) -> int:
    """Return which of a model's sizes is nearest to a picture's aspect ratio."""
    return nearest_size(image.height, image.width, tokenizer.picture_shapes)


def size_named(text: str, tokenizer: TokenizerConfig) -> int:
    """Return which of a model's sizes a text means: its pixels, such as 96x64, or its aspect ratio, such as 3:2.

    Raises:
        UserError: it means none of them; names all, and for another aspect ratio the nearest.
    """
    shapes = tokenizer.picture_shapes
    found = _SIZE.fullmatch(text)
    if found is None or "0" in (found[1].lstrip("0") or "0", found[3].lstrip("0") or "0"):
        raise UserError(f"size: got {text[:40]!r}, expected one of {_listed(shapes)}, or an aspect ratio such as 3:2")
    width, height = int(found[1]), int(found[3])
    if (height, width) in shapes:
        return shapes.index((height, width))
    same = [shape for shape in shapes if abs(_ratio(shape) * height / width - 1) <= _NEAR]
    if found[2] in ":/" and len(same) == 1:
        return shapes.index(same[0])
    if same:
        raise UserError(f"size: got {text[:40]!r}, expected {' or '.join(map(size_name, same))} for its aspect ratio")
    raise UserError(
        f"size: got {text[:40]!r}, whose aspect ratio is none of this model's; the nearest: "
        f"{_nearest(width / height, shapes)}; expected one of {_listed(shapes)}"
    )


def _nearest(ratio: float, shapes: Sequence[Shape]) -> str:
    """The sizes on both sides of an aspect ratio, or on the one where there are some."""
    below = [shape for shape in shapes if _ratio(shape) < ratio]
    above = [shape for shape in shapes if _ratio(shape) > ratio]
    sides = ([max(below, key=_ratio)] if below else []) + ([min(above, key=_ratio)] if above else [])
    return " and ".join(size_name(shape) for shape in sides)


def _ratio(shape: Shape) -> float:
    return shape[1] / shape[0]


def _listed(shapes: Sequence[Shape]) -> str:
    return ", ".join(map(size_name, shapes))
