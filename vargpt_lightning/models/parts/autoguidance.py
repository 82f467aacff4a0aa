"""Guidance by a worse version of the model, which makes the same mistakes and more of them (arXiv 2406.02507)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from vargpt_lightning.models.parts.base import UNGUIDED, Drawing, Facts, Hooks, Part, Scale, Step

NAME = "autoguidance"
TITLE = "an earlier checkpoint with the same prompt stands in for the second half of guidance"


@dataclass(frozen=True)
class Autoguidance(Part):
    """(1 + t) good - t bad, where both have read the prompt; t is the weight of guidance.

    Args:
        model: a run, a folder with a model, or OWNER/NAME; with `#STAGE` the run as it was after that stage. The model
            itself leaves its own logits.
    """

    name: ClassVar[str] = NAME
    excludes: ClassVar[tuple[str, ...]] = ("negative", "certainty")

    model: str

    def idle(self, facts: Facts) -> str:
        return UNGUIDED if facts.cfg == 0 else ""

    def begin(self, drawing: Drawing) -> Hooks:
        return Hooks() if drawing.facts.cfg == 0 else _Against(drawing.others(self.model))


class _Against(Hooks):
    def __init__(self, worse: Step) -> None:
        self.worse = worse

    def before_scale(self, scale: Scale) -> None:
        if scale.second:
            scale.against = self.worse

    def regroup(self, rows: Sequence[int]) -> None:
        self.worse.regroup(rows)


PART = Autoguidance
