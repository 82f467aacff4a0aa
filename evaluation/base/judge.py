"""What a judge of drawings has: a module that scores pictures, each beside the words that asked for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from PIL import Image

from vargpt_lightning.evaluation.base.protocols import RealPicture


@dataclass(frozen=True)
class Drawn:
    """A drawing with its request.

    Args:
        id: of the request.
        prompt: the words that asked for it.
        image: the first picture of the answer.
        picture: key of the real picture that the words name, None where there is none.
    """

    id: str
    prompt: str
    image: Image.Image = field(repr=False, compare=False)
    picture: str | None = None


@dataclass(frozen=True)
class Verdict:
    """What a judge says of a drawing: a finite score, the larger the better, and in a word what it takes it for."""

    score: float
    label: str = ""


@runtime_checkable
class Judge(Protocol):
    """A judge: a module with these names; docs/add-a-judge.md shows one."""

    @property
    def NAME(self) -> str:
        """By which it is found: a name of `evaluation.judges`."""

    @property
    def TITLE(self) -> str:
        """For people: what its mean score is, in a few words."""

    def judge(self, drawn: Sequence[Drawn], real: Sequence[RealPicture], /) -> Sequence[Verdict]:
        """A verdict for each drawing, in their order; `real` are all real pictures of the evaluation."""
