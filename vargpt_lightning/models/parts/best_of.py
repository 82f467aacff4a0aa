"""Several candidates of each picture, of which a scorer chooses: at the end, and between scales (TTS-VAR).

TTS-VAR (arXiv 2507.18537) draws candidates again in proportion to exp(10 score) of the picture so far.

Legend: R rows, all candidates of one picture side by side; C, H and W of the features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, ClassVar

from vargpt_lightning.models.parts.base import Drawing, Facts, Hooks, Part, Scale
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.ranges import Few, Range

if TYPE_CHECKING:
    from torch import Tensor

NAME = "best_of"
TITLE = "several candidates, of which a scorer chooses at the end, and between scales"


@dataclass(frozen=True)
class BestOf(Part):
    """Draw candidates and keep the best.

    Args:
        candidates_each: how many for each picture; 1 chooses nothing.
        scorer: name of a scorer (see docs/samplers.md).
        resample: scales after which candidates are drawn again from among themselves, with chances in proportion to
            exp(sharpness * score).
        sharpness: see there.
    """

    name: ClassVar[str] = NAME
    rank: ClassVar[int] = 99

    scorer: str
    candidates_each: Annotated[int, Range(1, 256)] = 4
    resample: list[Few] = field(default_factory=list)
    sharpness: Annotated[float, Range(0, 1e6)] = 10.0

    @property
    def candidates(self) -> int:
        """Pictures that are drawn for each row."""
        return self.candidates_each

    def check(self, facts: Facts) -> None:
        if wrong := [k for k in self.resample if k >= facts.scales - 1]:
            raise UserError(
                f"parts.{NAME}.resample: got {wrong[0]}, expected scales before the last, 0 to {facts.scales - 2}"
            )

    def idle(self, facts: Facts) -> str:
        if facts.greedy:
            return "the likeliest codes are taken, so that all candidates are one"
        return "candidates_each is 1" if self.candidates_each == 1 else ""

    def begin(self, drawing: Drawing) -> Hooks:
        return Hooks() if self.candidates_each == 1 else _Choosing(self, drawing)


class _Choosing(Hooks):
    def __init__(self, part: BestOf, drawing: Drawing) -> None:
        self.part, self.drawing, self.score = part, drawing, drawing.sources.scorer(part.scorer)

    def after_scale(self, scale: Scale, f_hat_RCHW: Tensor) -> list[int] | None:
        last, n = scale.k == self.drawing.last, self.part.candidates_each
        if not last and scale.k not in self.part.resample:
            return None
        pictures = self.drawing.images(self.drawing.tokenizer.decode(f_hat_RCHW))
        scores = [float(each) for each in self.score(pictures, self.drawing.requests)]
        if len(scores) != len(pictures) or not all(map(math.isfinite, scores)):
            wrong = next((each for each in scores if not math.isfinite(each)), f"{len(scores)} scores")
            raise UserError(
                f"parts.{NAME}: the scorer {self.part.scorer!r} gave {wrong}, expected a number for each of "
                f"{len(pictures)} pictures"
            )
        groups = [scores[first : first + n] for first in range(0, len(scores), n)]
        if last:
            return [g * n + max(range(n), key=group.__getitem__) for g, group in enumerate(groups)]
        return [g * n + place for g, group in enumerate(groups) for place in self._again(g * n, group)]

    def _again(self, first: int, scores: Sequence[float]) -> list[int]:
        """Candidates of one picture, drawn again from its own stream."""
        import torch

        chances = torch.tensor([self.part.sharpness * score for score in scores]).softmax(dim=0)
        stream = self.drawing.streams[first]
        found: list[int] = torch.multinomial(
            chances.to(stream.device), len(scores), replacement=True, generator=stream
        ).tolist()
        return sorted(found)


PART = BestOf
