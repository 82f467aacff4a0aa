"""A negative prompt: the second half goes on from a request for what is not wanted, not from nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vargpt_lightning.models.parts.base import UNGUIDED, Drawing, Facts, Hooks, Part

NAME = "negative"
TITLE = "the second half of guidance has read a request for what is not wanted"


@dataclass(frozen=True)
class Negative(Part):
    """Guidance away from a request, as Infinity's and diffusion samplers have it.

    Args:
        prompt: the request, as a user would write it; an empty one leaves plain guidance.
    """

    name: ClassVar[str] = NAME
    excludes: ClassVar[tuple[str, ...]] = ("autoguidance",)

    prompt: str = ""

    def idle(self, facts: Facts) -> str:
        if facts.cfg == 0:
            return UNGUIDED
        return "" if self.prompt.strip() else "the prompt is empty"

    def begin(self, drawing: Drawing) -> Hooks:
        if self.prompt.strip() and drawing.facts.cfg != 0:
            drawing.step.read_second(drawing.sources.prompt_ids(self.prompt))
        return Hooks()


PART = Negative
