"""Guidance that the second half's memory of sure tokens is weakened for: SoftCFG (arXiv 2510.00996).

What is public is the idea and the weight: the values that the half without the condition has cached are perturbed token
by token, by how likely the likeliest code was with the condition, and the sum of it is bounded at each step. How the
bound is reached here is our own reading.

Legend: R rows, G those with guidance, l tokens of a scale, V codebook, H heads, D head dimension.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from vargpt_lightning.models.parts.base import UNGUIDED, Drawing, Facts, Hooks, Part, Scale
from vargpt_lightning.utils.ranges import Range

if TYPE_CHECKING:
    from torch import Tensor

NAME = "certainty"
TITLE = "guidance weighted by certainty: the second half forgets tokens that were sure"


@dataclass(frozen=True)
class Certainty(Part):
    """Cached values of the second half, multiplied by 1 - strength * p after each scale; p is the largest chance.

    Args:
        strength: 0 leaves plain guidance.
        bound: the p of a scale are scaled down until they add up to this at most; 0 for no bound.
    """

    name: ClassVar[str] = NAME
    indices_alone: ClassVar[bool] = True
    excludes: ClassVar[tuple[str, ...]] = ("autoguidance", "scalekv", "fastvar")

    strength: Annotated[float, Range(0, 1)] = 1.0
    bound: Annotated[float, Range(0, 1e6)] = 1.0

    def idle(self, facts: Facts) -> str:
        if facts.cfg == 0:
            return UNGUIDED
        return "strength is 0" if self.strength == 0 else ""

    def begin(self, drawing: Drawing) -> Hooks:
        return _Forgetting(self) if self.strength else Hooks()

    def factors(self, cond_GlV: Tensor) -> Tensor:
        """Return what the values of each token are multiplied by, (G, l), from the logits with the condition."""
        sure_Gl = cond_GlV.float().softmax(dim=-1).amax(dim=-1)
        if self.bound:
            sure_Gl = sure_Gl * (self.bound / sure_Gl.sum(dim=-1, keepdim=True)).clamp_max(1.0)
        return 1 - self.strength * sure_Gl


class _Forgetting(Hooks):
    def __init__(self, part: Certainty) -> None:
        self.part = part

    def logits(self, scale: Scale, cond_RlV: Tensor, second_GlV: Tensor | None, guided_RlV: Tensor) -> Tensor:
        if second_GlV is not None and len(second_GlV) == len(cond_RlV):
            factors_G1l1 = self.part.factors(cond_RlV)[:, None, :, None]
            for values_GHlD in scale.step.second_values(scale.k):
                values_GHlD.mul_(factors_G1l1.to(values_GHlD.dtype))
        return guided_RlV


PART = Certainty
