"""CoDe (arXiv 2411.17787): a large model draws the coarse scales, a small one the fine ones, where most tokens are.

The small model is fed the picture so far scale by scale, which fills its caches as if it had drawn it; the released
code does so in one pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from vargpt_lightning.models.parts.base import Drawing, Facts, Hooks, Part, Scale, Step
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.ranges import Few

if TYPE_CHECKING:
    from torch import Tensor

NAME = "code"
TITLE = "a second model draws the scales from a number on"


@dataclass(frozen=True)
class CoDe(Part):
    """Draw the fine scales with another model of the same tokens.

    Args:
        model: a run, `RUN#STAGE`, a folder with a model, or OWNER/NAME.
        scales: how many the model itself draws; all leave nothing to the other, 0 leaves it everything.
    """

    name: ClassVar[str] = NAME
    rank: ClassVar[int] = 30
    excludes: ClassVar[tuple[str, ...]] = ("autoguidance", "negative", "certainty", "fastvar", "scalekv")

    model: str
    scales: Few

    def check(self, facts: Facts) -> None:
        if self.scales > facts.scales:
            raise UserError(f"parts.{NAME}.scales: got {self.scales}, expected at most the {facts.scales} there are")

    def idle(self, facts: Facts) -> str:
        return "the model draws all scales itself" if self.scales == facts.scales else ""

    def begin(self, drawing: Drawing) -> Hooks:
        return Hooks() if self.idle(drawing.facts) else _Handed(drawing.others(self.model), self.scales)


class _Handed(Hooks):
    def __init__(self, other: Step, scales: int) -> None:
        self.other, self.scales = other, scales
        self.inputs: list[Tensor | None] = []

    def before_scale(self, scale: Scale) -> None:
        if scale.k < self.scales:
            self.inputs.append(scale.input_RlC)
            return
        if scale.k == self.scales:
            for k, input_RlC in enumerate(self.inputs):
                self.other.logits(k, input_RlC, scale.second)
        scale.step = self.other

    def regroup(self, rows: Sequence[int]) -> None:
        self.other.regroup(rows)
        self.inputs = [None if x_RlC is None else x_RlC[list(rows)] for x_RlC in self.inputs]


PART = CoDe
