"""Guidance at some scales alone; after the last of them the second half is not computed any more.

That meaning is settled at coarse scales, so that late ones need no guidance, is StageVAR's (arXiv 2512.16483) and
SkipVAR's (arXiv 2506.08908) observation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vargpt_lightning.models.parts.base import UNGUIDED, Drawing, Facts, Hooks, Part, Scale
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.ranges import Few

NAME = "guided_scales"
TITLE = "guidance at the scales from start to before stop; the second half is not computed after them"


@dataclass(frozen=True)
class GuidedScales(Part):
    """Guidance at the scales [start, stop), none at the others.

    The second half is computed up to the last of these scales: the first of them attends to what lies before it.

    Args:
        start: the first scale with guidance.
        stop: the first one after it without; None for as many as there are.
    """

    name: ClassVar[str] = NAME
    rank: ClassVar[int] = 20

    start: Few = 0
    stop: Few | None = None

    def check(self, facts: Facts) -> None:
        last = facts.scales
        if not (self.start <= last and self.start <= self._stop(facts) <= last):
            raise UserError(
                f"parts.{NAME}: got start={self.start} and stop={self.stop}, expected 0 <= start <= stop <= {last}, "
                "the number of scales"
            )

    def idle(self, facts: Facts) -> str:
        if facts.cfg == 0:
            return UNGUIDED
        return "these are all scales" if (self.start, self._stop(facts)) == (0, facts.scales) else ""

    def begin(self, drawing: Drawing) -> Hooks:
        return _Within(self.start, self._stop(drawing.facts))

    def _stop(self, facts: Facts) -> int:
        return facts.scales if self.stop is None else self.stop


class _Within(Hooks):
    def __init__(self, start: int, stop: int) -> None:
        self.start, self.stop = start, stop

    def before_scale(self, scale: Scale) -> None:
        if scale.k >= self.stop or self.start == self.stop:
            scale.second = False
        elif scale.k < self.start:
            scale.weights = [0.0] * len(scale.weights)


PART = GuidedScales
