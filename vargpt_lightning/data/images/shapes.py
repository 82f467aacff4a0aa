"""Heights and widths of pictures, and which of some is nearest to a picture's. Imports nothing."""

from __future__ import annotations

from collections.abc import Sequence

Shape = tuple[int, int]
"""Height and width."""


def nearest_size(height: float, width: float, shapes: Sequence[Shape]) -> int:
    """Return which of some shapes has the aspect ratio (height over width) nearest to a picture's; the first of two."""
    return min(range(len(shapes)), key=lambda size: abs(height / width - shapes[size][0] / shapes[size][1]))
