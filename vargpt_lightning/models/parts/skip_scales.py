"""The last scales left out: the picture is what the scales before them show.

SkipVAR (arXiv 2506.08908) leaves out up to three, as two regressions decide for each picture; FastVAR (arXiv
2503.23367) leaves out the two finest of Infinity's whatever the picture. Here the number is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vargpt_lightning.models.parts.base import Drawing, Facts, Hooks, Part, Scale
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.ranges import Few

NAME = "skip_scales"
TITLE = "the last scales are not computed"


@dataclass(frozen=True)
class SkipScales(Part):
    """Leave out the last scales.

    Args:
        last: how many; 0 draws all.
    """

    name: ClassVar[str] = NAME
    rank: ClassVar[int] = 5

    last: Few = 1

    def check(self, facts: Facts) -> None:
        if self.last and facts.bits:
            raise UserError(f"parts.{NAME}.last: the model draws bits, and no bits stand for a scale that is left out")
        if self.last >= facts.scales:
            raise UserError(f"parts.{NAME}.last: got {self.last}, expected less than the {facts.scales} scales")

    def idle(self, facts: Facts) -> str:
        return "" if self.last else "last is 0"

    def begin(self, drawing: Drawing) -> Hooks:
        return _Short(drawing.facts.scales - self.last)


class _Short(Hooks):
    def __init__(self, scales: int) -> None:
        self.scales = scales

    def before_scale(self, scale: Scale) -> None:
        scale.skipped = scale.k >= self.scales


PART = SkipScales
