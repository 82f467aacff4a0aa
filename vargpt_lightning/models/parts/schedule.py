"""Guidance that grows in another way over the scales than the settings say."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from vargpt_lightning.models.parts.base import UNGUIDED, Drawing, Facts, Hooks, Part, Scale

NAME = "schedule"
TITLE = "guidance grows linearly, as a cosine, or not at all over the scales"


@dataclass(frozen=True)
class Schedule(Part):
    """How `cfg` is reached at the last scale.

    Args:
        shape: "linear" grows evenly from 0 (VAR's sampler, arXiv 2404.02905), "constant" is `cfg` at each scale,
            "cosine" is cfg (1 - cos(pi k / (K - 1))) / 2: slow at both ends.
    """

    name: ClassVar[str] = NAME
    rank: ClassVar[int] = 10
    excludes: ClassVar[tuple[str, ...]] = ("weights",)

    shape: Literal["linear", "constant", "cosine"] = "cosine"

    def share(self, k: int, scales: int) -> float:
        """Return the share of `cfg` at scale k."""
        progress = k / (scales - 1) if scales > 1 else 0.0
        if self.shape == "cosine":
            return (1 - math.cos(math.pi * progress)) / 2
        return 1.0 if self.shape == "constant" else progress

    def idle(self, facts: Facts) -> str:
        if facts.cfg == 0:
            return UNGUIDED
        return f"{self.shape} is what the settings say" if self.shape == facts.cfg_schedule else ""

    def begin(self, drawing: Drawing) -> Hooks:
        return _Shaped(self, drawing.facts)


class _Shaped(Hooks):
    def __init__(self, part: Schedule, facts: Facts) -> None:
        self.part, self.facts = part, facts

    def before_scale(self, scale: Scale) -> None:
        weight = self.facts.cfg * self.part.share(scale.k, self.facts.scales)
        scale.weights = [weight] * len(scale.weights)


PART = Schedule
