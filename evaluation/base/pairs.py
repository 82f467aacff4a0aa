"""What scores a drawing with the words that it should show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from PIL import Image

from vargpt_lightning.evaluation.base.protocols import AnswerRequest


class PairScorer(Protocol):
    """Scores pairs of a picture and a text; `settings` holds all that a score depends on."""

    @property
    def kind(self) -> str:
        """What its scores are called: vqa_score, pickscore, ..."""

    @property
    def settings(self) -> dict[str, Any]: ...

    def scores(self, pictures: Sequence[Image.Image], texts: Sequence[str]) -> Sequence[float]:
        """A finite number for each pair, the larger the better."""


@runtime_checkable
class HasProbability(Protocol):
    """A system that says how likely a word is as the start of its answer to a question about pictures."""

    def probability(self, requests: Sequence[AnswerRequest], word: str) -> Sequence[float]: ...
