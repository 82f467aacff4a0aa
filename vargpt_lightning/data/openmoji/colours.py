"""What colours a picture has, measured on the fills of OpenMoji's own palette."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# OpenMoji's palette under the names that people give its colours. Amber (#f1b31c) is what OpenMoji shades yellow with;
# #3f3f3f is what black animals are filled with.
PALETTE: dict[str, str] = {
    "#fcea2b": "yellow",
    "#f1b31c": "yellow",
    "#f4aa41": "orange",
    "#e27022": "orange",
    "#ea5a47": "red",
    "#d22f27": "red",
    "#781e32": "red",
    "#ffa7c0": "pink",
    "#e67a94": "pink",
    "#fadcbc": "pink",
    "#b399c8": "purple",
    "#8967aa": "purple",
    "#92d3f5": "blue",
    "#61b2e4": "blue",
    "#1e50a0": "blue",
    "#b1cc33": "green",
    "#5c9e31": "green",
    "#186648": "green",
    "#debb90": "brown",
    "#c19a65": "brown",
    "#a57939": "brown",
    "#6a462f": "brown",
    "#ffffff": "white",
    "#d0cfce": "gray",
    "#9b9b9a": "gray",
    "#3f3f3f": "black",
    "#000000": "outline",
}

_NAMES = list(PALETTE.values())
_RGB_P3 = np.array([[int(code[i : i + 2], 16) for i in (1, 3, 5)] for code in PALETTE], dtype=np.int32)
_TOLERANCE = 12  # a blended pixel of an edge is farther than this from every palette colour
_OPAQUE = 250
_OUTLINE_DOMINATES = 0.6


def colour_shares(rgba_HW4: npt.NDArray[np.uint8]) -> dict[str, float]:
    """Return each basic colour's share of the picture's filled area, largest first; shares add up to 1.

    Counted are opaque pixels that match the palette: the transparent ground does not count, a white fill does.
    The black outline is left out unless it covers most of the shape, which is then black.
    """
    pixels_N4 = rgba_HW4.reshape(-1, 4)
    rgb_N3 = pixels_N4[pixels_N4[:, 3] >= _OPAQUE, :3].astype(np.int32)
    codes_U, counts_U = np.unique(rgb_N3 @ np.array([1 << 16, 1 << 8, 1], np.int32), return_counts=True)
    distinct_U3 = np.stack([codes_U >> 16, codes_U >> 8 & 255, codes_U & 255], axis=1)
    areas: dict[str, float] = {}
    if len(distinct_U3):
        distance_UP = np.abs(distinct_U3[:, None] - _RGB_P3[None]).max(axis=-1)
        nearest_U = distance_UP.argmin(axis=1)
        for row, (index, count) in enumerate(zip(nearest_U, counts_U, strict=True)):
            if distance_UP[row, index] <= _TOLERANCE:
                areas[_NAMES[index]] = areas.get(_NAMES[index], 0.0) + float(count)
    outline = areas.pop("outline", 0.0)
    if outline > _OUTLINE_DOMINATES * (outline + sum(areas.values())):
        areas["black"] = areas.get("black", 0.0) + outline
    total = sum(areas.values())
    ordered = sorted(areas.items(), key=lambda item: (-item[1], item[0]))
    return {name: area / total for name, area in ordered}
