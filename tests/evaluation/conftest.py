"""A small world to evaluate: coloured pictures, a model that answers and draws, features that tell them apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from vargpt_lightning.evaluation.base.protocols import Drawing, Question, RealPicture
from vargpt_lightning.evaluation.features.efficientnet import pixels

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "teal", "brown")


def colour_features(pictures: Sequence[Image.Image]) -> torch.Tensor:
    """Mean colours: enough to tell the pictures of these tests apart."""
    if not pictures:
        return torch.zeros(0, 3)
    return torch.cat([pixels([picture]).mean(dim=(2, 3)) / 255 for picture in pictures])


class Stopped(Exception):
    """What stands for a kill."""


@dataclass
class Fake:
    """Answers and draws as the prompt says, remembers what it was asked, and stops after some batches."""

    batches: int = 10**9
    asked: list[str] = field(default_factory=list)
    drawn: list[tuple[str, int]] = field(default_factory=list)
    wrong: str = ""

    def _count(self) -> None:
        self.batches -= 1
        if self.batches < 0:
            raise Stopped

    def answer(self, requests: Sequence[Any]) -> list[str]:
        self._count()
        self.asked += [request.id for request in requests]
        return [self.wrong or request.prompt.split()[-1] for request in requests]

    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Any]:
        self._count()
        self.drawn += list(zip(prompts, seeds, strict=True))
        return [self._draw(prompt.split()[-1]) for prompt in prompts]

    def _draw(self, colour: str) -> Any:
        if colour == "teal":
            return "I would rather not."
        picture = Image.new("RGB", (16, 16), "red" if colour == "orange" else colour)
        steps = [Image.new("RGB", (16, 16), "grey"), picture] if colour == "red" else []
        return SimpleNamespace(parts=[SimpleNamespace(text="Here:"), SimpleNamespace(image=picture, progress=steps)])


@dataclass(frozen=True)
class World:
    questions: list[Question]
    drawings: list[Drawing]
    pictures: list[RealPicture]

    def arguments(self, out: Any) -> dict[str, Any]:
        return {
            "questions": self.questions,
            "drawings": self.drawings,
            "pictures": self.pictures,
            "out": out,
            "features": colour_features,
            "model": "weights-1",
        }


@pytest.fixture
def world() -> World:
    split = {colour: "test" if colour in ("teal", "brown") else "train" for colour in COLOURS}
    pictures = [
        RealPicture(c, Image.new("RGB", (16, 16), c), f"a {c} thing", split[c], "warm" if n % 2 else "cold", c)
        for n, c in enumerate(COLOURS)
    ]
    questions = [Question(f"{c}/{n}", "colour", f"{n}? Say {c}", c, c, split[c]) for c in COLOURS for n in range(2)]
    drawings = [Drawing(f"draw {c}", f"Draw {c}", n, c, split[c]) for n, c in enumerate(COLOURS)]
    return World(questions, drawings, pictures)
