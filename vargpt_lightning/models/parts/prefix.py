"""Visual Prefix Guidance (VPG, arXiv 2605.30317): away from what would be drawn if the picture so far were unknown.

Legend: R rows, l tokens of a scale, C code size, V codebook.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from vargpt_lightning.models.parts.base import Drawing, Facts, Hooks, Part, Scale
from vargpt_lightning.utils.ranges import Range

if TYPE_CHECKING:
    from torch import Tensor

NAME = "prefix"
TITLE = "visual prefix guidance: away from the logits of a scale whose input is corrupted"


@dataclass(frozen=True)
class Prefix(Part):
    """Logits + w (logits of the prefix - logits of the prefix whose newest input is corrupted); a third forward.

    Which replacement the authors take is not public in full; both of these replace all of a scale's input.

    Args:
        weight: w; 0 leaves the logits as they are.
        corruption: "zero" puts nothing in the place of the picture so far, "mean" its mean over the map.
    """

    name: ClassVar[str] = NAME
    rank: ClassVar[int] = 60
    excludes: ClassVar[tuple[str, ...]] = ("fastvar", "scalekv")

    weight: Annotated[float, Range(0, 100)] = 0.5
    corruption: Literal["zero", "mean"] = "zero"

    def idle(self, facts: Facts) -> str:
        if self.weight == 0:
            return "weight is 0"
        return "there is one scale, which has no picture before it" if facts.scales == 1 else ""

    def begin(self, drawing: Drawing) -> Hooks:
        return _Contrast(self) if self.weight else Hooks()


class _Contrast(Hooks):
    def __init__(self, part: Prefix) -> None:
        self.part = part
        self.corrupted_RlV: Tensor | None = None

    def before_scale(self, scale: Scale) -> None:
        self.corrupted_RlV = None
        if scale.input_RlC is None or scale.skipped:
            return
        given_RlC = scale.input_RlC
        whole = given_RlC.mean(dim=1, keepdim=True) if self.part.corruption == "mean" else given_RlC.new_zeros(1, 1, 1)
        self.corrupted_RlV = scale.step.probe(scale.k, whole.expand_as(given_RlC))

    def logits(self, scale: Scale, cond_RlV: Tensor, second_GlV: Tensor | None, guided_RlV: Tensor) -> Tensor:
        if self.corrupted_RlV is None:
            return guided_RlV
        return guided_RlV + self.part.weight * (cond_RlV.float() - self.corrupted_RlV.float())


PART = Prefix
