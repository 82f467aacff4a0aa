"""The name of a thing's colour, by its distance to the colours of scenes in OKLab.

OKLab is perceptual: equal distances look about equally different (B. Ottosson, "A perceptual color space for image
processing", 2020). Shapes: N pixels.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt

from vargpt_lightning.data.scenes.shapes import COLOURS

FARTHEST = 0.16  # from every colour's tones: the pixel has no name
LEAST_SHARE = 0.5  # of the named pixels that the commonest name must have
LEAST_CHROMA = 0.035  # less is white, gray or black
STRONG = 0.7  # of the strongest chroma: what is weaker is mixed with the outline or the ground
_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def oklab(rgb_N3: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Convert sRGB pixels (N, 3) to lightness, green-red and blue-yellow (N, 3)."""
    encoded_N3 = rgb_N3.astype(np.float64) / 255
    linear_N3 = np.where(encoded_N3 <= 0.04045, encoded_N3 / 12.92, ((encoded_N3 + 0.055) / 1.055) ** 2.4)
    return np.asarray(np.cbrt(linear_N3 @ _LMS.T) @ _LAB.T)


_NAMES = [name for name, tones in COLOURS.items() for _ in tones]
_TONES_T3 = oklab(
    np.array([[int(tone[i : i + 2], 16) for i in (1, 3, 5)] for tones in COLOURS.values() for tone in tones], np.uint8)
)


def colour_name(rgb_N3: npt.NDArray[np.uint8]) -> str | None:
    """Return the name that most of the coloured pixels have; None where there is no clear one."""
    lab_N3 = oklab(rgb_N3)
    chroma_N = np.hypot(lab_N3[:, 1], lab_N3[:, 2])
    if not len(chroma_N):
        return None
    lab_N3 = lab_N3[chroma_N >= max(LEAST_CHROMA, STRONG * float(np.quantile(chroma_N, 0.9)))]
    distance_NT = np.linalg.norm(lab_N3[:, None] - _TONES_T3[None], axis=2)
    if not len(distance_NT):
        return None
    nearest_N = distance_NT.argmin(axis=1)[distance_NT.min(axis=1) <= FARTHEST]
    votes = Counter(_NAMES[tone] for tone in nearest_N)
    if not votes:
        return None
    name, count = votes.most_common(1)[0]
    return name if count >= LEAST_SHARE * votes.total() else None
