"""Pictures that are nearly the same, found by their pixels and names: a family goes into one split as a whole.

A full moon beside a yellow circle, a man running beside a person running, the same person facing right: with one of
them in training the other is no longer held out.

Shape suffixes: P pictures, H height, W width, C colours (HWC together as F).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

SIDE = 32  # pixels at which pictures are compared
# Root mean square of the differences of colours in [0, 1]. Below 0.05 pictures are the same drawing but for a detail;
# the rest is a margin for other ways to shrink them. Pictures that are apart are mostly above 0.15.
NEAR = 0.08
# Names that differ in nothing but these name the same drawing: who is shown, and which way it faces.
_WHO = ("man", "men", "woman", "women", "person", "people", "boy", "girl", "and")
_WHO_AND_WHERE = frozenset([*_WHO, "left", "right", "facing"])


def families(pictures: Sequence[np.ndarray], names: Sequence[str]) -> list[int]:
    """Return for each picture the position of the first one of its family, its own where it stands alone.

    A family is a chain of pictures that are nearer than `NEAR` to the next, as they are or mirrored (training mirrors
    pictures), or whose names differ only in who is shown and which way it faces.

    Args:
        pictures: (H, W, 3) uint8, each square with a side that `SIDE` divides.
        names: of the pictures.
    """
    first = list(range(len(pictures)))

    def root(place: int) -> int:
        while first[place] != place:
            first[place] = place = first[first[place]]
        return place

    named: dict[str, int] = {}
    pairs = near_pairs(pictures) if len(pictures) else []
    subjects = [_subject(name) for name in names]
    pairs += [(named.setdefault(subject, place), place) for place, subject in enumerate(subjects) if subject]
    for one, other in pairs:
        low, high = sorted((root(one), root(other)))
        first[high] = low
    return [root(place) for place in range(len(pictures))]


def near_pairs(pictures: Sequence[np.ndarray], below: float = NEAR) -> list[tuple[int, int]]:
    """Return the pairs of pictures whose distance is less than that, the lower position first."""
    near_PP = distances(pictures) < below
    return [(int(one), int(other)) for one, other in np.argwhere(np.triu(near_PP, 1))]


def distances(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Return the distances (P, P) of pictures at 32 pixels: RMS over colours in [0, 1], of the nearer mirror image.

    Sums are of whole numbers below 2**53, so that they are exact on every machine.
    """
    small_PHWC = np.stack([_shrink(picture) for picture in pictures])
    straight_PF = small_PHWC.reshape(len(small_PHWC), -1).astype(np.float64)
    mirrored_PF = small_PHWC[:, :, ::-1].reshape(len(small_PHWC), -1).astype(np.float64)
    squares_P = (straight_PF**2).sum(1)
    alike_PP = np.maximum(straight_PF @ straight_PF.T, straight_PF @ mirrored_PF.T)
    squared_PP = squares_P[:, None] + squares_P[None] - 2 * alike_PP
    return np.sqrt(squared_PP / straight_PF.shape[1]) / 255


def _shrink(picture_HWC: np.ndarray) -> np.ndarray:
    """A picture at 32 pixels, each the mean of what it covers, as a whole number."""
    factor = picture_HWC.shape[0] // SIDE
    blocks = picture_HWC.astype(np.int64).reshape(SIDE, factor, SIDE, factor, 3)
    return (blocks.sum((1, 3)) + factor**2 // 2) // factor**2


def _subject(name: str) -> str:
    words = [word for word in re.split(r"[ -]", name.lower()) if word not in _WHO_AND_WHERE]
    return " ".join(words)
