"""A guidance weight of its own for each scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from vargpt_lightning.models.parts.base import UNGUIDED, Drawing, Facts, Hooks, Part, Scale, check_length
from vargpt_lightning.utils.ranges import Range

NAME = "weights"
TITLE = "guidance weights as a list, one for each scale"


@dataclass(frozen=True)
class Weights(Part):
    """Guidance weights t in (1 + t) cond - t uncond, in place of `cfg` and how it grows.

    Args:
        values: one for each scale, coarse to fine.
    """

    name: ClassVar[str] = NAME
    rank: ClassVar[int] = 10
    excludes: ClassVar[tuple[str, ...]] = ("schedule",)

    values: list[Annotated[float, Range(0, 100)]]

    def check(self, facts: Facts) -> None:
        check_length(f"{NAME}.values", self.values, facts)

    def idle(self, facts: Facts) -> str:
        return UNGUIDED if facts.cfg == 0 else ""

    def begin(self, drawing: Drawing) -> Hooks:
        return _Listed([float(value) for value in self.values])


class _Listed(Hooks):
    def __init__(self, values: list[float]) -> None:
        self.values = values

    def before_scale(self, scale: Scale) -> None:
        scale.weights = [self.values[scale.k]] * len(scale.weights)


PART = Weights
