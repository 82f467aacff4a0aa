"""The decoder's products with weights of 8 bits: on the CPU with inputs of 8 bits too, elsewhere weights alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vargpt_lightning.models.parts.base import Drawing, Facts, Hooks, Part
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.ranges import Few

NAME = "int8"
TITLE = "blocks of the decoder multiply with weights of 8 bits"


@dataclass(frozen=True)
class Int8(Part):
    """Weights of 8 bits, scaled by row (see `models.decoder.int8`); the model's own stay beside them.

    Args:
        blocks: how many of the first blocks; None for all, 0 for none.
    """

    name: ClassVar[str] = NAME

    blocks: Few | None = None

    def check(self, facts: Facts) -> None:
        if self.blocks is not None and self.blocks > facts.depth:
            raise UserError(f"parts.{NAME}.blocks: got {self.blocks}, expected at most the {facts.depth} there are")

    def idle(self, facts: Facts) -> str:
        return "blocks is 0" if self.blocks == 0 else ""

    def begin(self, drawing: Drawing) -> Hooks:
        if self.blocks != 0:
            drawing.step.use_int8(drawing.facts.depth if self.blocks is None else self.blocks)
        return Hooks()


PART = Int8
