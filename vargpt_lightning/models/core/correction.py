"""The settings of self-correction: training on pictures that go wrong on the way. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vargpt_lightning.utils.ranges import Few, Ranged, Share


@dataclass
class SelfCorrection(Ranged):
    """Codes are changed at random before they are fed on, and later scales learn to make up for it (Infinity, arXiv
    2412.04431, section 3.4).

    For each scale a share p of 0, 0.01, … up to `strength` is drawn for the whole batch. That share of a picture's
    numbers is changed: a bit is flipped, an index becomes another one. The scale's own targets stay; those of later
    scales are what is left over by the changed codes. None of it happens in validation.

    Args:
        strength: the largest share of a scale that is changed, at most 1; 0 changes nothing.
        scales: only so many of the coarsest scales are changed.
    """

    place: ClassVar[str] = "self_correction"

    strength: Share = 0.3
    scales: Few = 13
