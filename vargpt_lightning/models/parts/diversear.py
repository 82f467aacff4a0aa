"""DiverseAR (arXiv 2512.02931): coarse scales are drawn at temperatures that leave them as unsure as they should be.

Legend: R rows, l tokens of a scale, V codebook, or the two values of each of D bits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from vargpt_lightning.models.parts.base import Drawing, Facts, Hooks, Part, Scale
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.ranges import Share

if TYPE_CHECKING:
    from torch import Tensor

NAME = "diversear"
TITLE = "temperatures of coarse scales are searched for, so that drawings differ more"
STEPS = 20
HOTTEST = 8.0


@dataclass(frozen=True)
class DiverseAR(Part):
    """Temperatures from 1 to 8, by bisection, at which the mean over a map of the largest chance is the target.

    Of a model in bits, as Infinity is, the chances are those of the two values of each bit, and the mean is over all
    bits of the map.

    Args:
        targets: of the first scales; the others are left as they are. The published ones are the default. Where the
            largest chance is below the target already, the temperature is 1.
    """

    name: ClassVar[str] = NAME
    rank: ClassVar[int] = 90

    targets: list[Share] = field(default_factory=lambda: [0.6, 0.6, 0.65, 0.7, 0.75, 0.8])

    def check(self, facts: Facts) -> None:
        default = type(self)().targets
        if len(self.targets) > facts.scales and self.targets != default:
            raise UserError(
                f"parts.{NAME}.targets: got {len(self.targets)}, expected at most one a scale, {facts.scales}"
            )

    def idle(self, facts: Facts) -> str:
        if facts.greedy:
            return "the likeliest codes are taken, whatever the temperature"
        return "" if any(target < 1 for target in self.targets) else "no target is below 1"

    def begin(self, drawing: Drawing) -> Hooks:
        return Hooks() if self.idle(drawing.facts) else _Heating(self.targets, drawing.facts.bits)


class _Heating(Hooks):
    def __init__(self, targets: list[float], bits: bool) -> None:
        self.targets, self.bits = targets, bits

    def logits(self, scale: Scale, cond_RlV: Tensor, second_GlV: Tensor | None, guided_RlV: Tensor) -> Tensor:
        if scale.k >= len(self.targets):
            return guided_RlV
        return guided_RlV / temperatures(guided_RlV, float(self.targets[scale.k]), self.bits)[:, None, None]


def temperatures(logits_RlV: Tensor, target: float, bits: bool = False) -> Tensor:
    """Return the temperature of each row (R,), from 1 to 8, at which the mean largest chance is the target.

    With `bits` neighbouring logits are those of a bit's two values.
    """
    import torch

    if bits:
        logits_RlV = logits_RlV.unflatten(-1, (-1, 2)).flatten(1, 2)  # each bit by itself

    low_R, high_R = (torch.full((len(logits_RlV),), end, device=logits_RlV.device) for end in (1.0, HOTTEST))
    sure_R = _peak(logits_RlV, low_R) > target
    for _ in range(STEPS):
        middle_R = (low_R + high_R) / 2
        above_R = _peak(logits_RlV, middle_R) > target
        low_R, high_R = torch.where(above_R, middle_R, low_R), torch.where(above_R, high_R, middle_R)
    return torch.where(sure_R, (low_R + high_R) / 2, torch.ones_like(low_R))


def _peak(logits_RlV: Tensor, heat_R: Tensor) -> Tensor:
    """The mean over a map of the largest chance, (R,)."""
    return (logits_RlV / heat_R[:, None, None]).softmax(dim=-1).amax(dim=-1).mean(dim=-1)


PART = DiverseAR
