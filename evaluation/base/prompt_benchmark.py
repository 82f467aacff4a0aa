"""What a benchmark of prompt-following has: prompts to draw, what is asked of each picture, how answers are scored.

A record is one prompt with what its score needs. What was found out about a picture is a mapping from the names of its
checks. Nothing here imports torch: pictures that others judged are scored anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from vargpt_lightning.evaluation.base.benchmark import RESAMPLES, Record, Score
from vargpt_lightning.utils.errors import UserError

Kind = Literal["question", "detections", "similarity"]
QUESTION: Final = "question"
DETECTIONS: Final = "detections"
SIMILARITY: Final = "similarity"
Found = Mapping[str, Any]
"""By the name of a check: an answer (str), the objects in the picture (of `Detection`), or a cosine (float)."""


@dataclass(frozen=True)
class Check:
    """One thing that is found out about a picture.

    Args:
        name: no other check of the picture has it.
        kind: who finds it out: a system that answers questions, a detector, or a CLIP model.
        text: the question, or the words that the picture is compared with.
        colours: of detections, the classes whose objects' colours are asked for.
        max_new_tokens: how long an answer may be.
    """

    name: str
    kind: Kind
    text: str = ""
    colours: tuple[str, ...] = ()
    max_new_tokens: int = 16


@dataclass(frozen=True)
class Detection:
    """An object in a picture: its class, how sure the detector is, left, top, right and bottom in pixels, its colour.

    `colour` is a classifier's answer, empty where none was asked; `mask` the object's own pixels, (H, W), where the
    detector tells them.
    """

    label: str
    score: float
    box: tuple[float, float, float, float]
    colour: str = ""
    mask: Any = field(default=None, repr=False, compare=False)

    def row(self) -> dict[str, Any]:
        """The object as files have it, without its pixels."""
        row = {"label": self.label, "score": self.score, "box": list(self.box)}
        return row | ({"colour": self.colour} if self.colour else {})


def as_detection(row: Any, where: str) -> Detection:
    """Read an object of a file: label (or class), score, box, and perhaps colour (or color). Raises UserError."""
    if not isinstance(row, Mapping):
        raise UserError(f"{where}: {str(row)[:60]!r}; expected an object with label, score and box")
    label, score, box = row.get("label", row.get("class")), row.get("score"), row.get("box")
    whole = isinstance(label, str) and _is_number(score)
    if not whole or not isinstance(box, Sequence) or len(box) != 4 or not all(map(_is_number, box)):
        raise UserError(f"{where}: {str(dict(row))[:100]}; expected label, score, and box as left, top, right, bottom")
    colour = row.get("colour", row.get("color")) or ""
    return Detection(str(label), float(score or 0.0), (box[0], box[1], box[2], box[3]), str(colour))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


class Detector(Protocol):
    """Finds the objects in pictures; `name`, `digest` and `settings` say which it is, as those of other systems do.

    One with `needs_pictures = False` reads them from a file, by ids, and is given no pictures.
    """

    def detect(self, ids: Sequence[str], pictures: Sequence[Image.Image]) -> Sequence[Sequence[Detection]]: ...


@runtime_checkable
class PromptBenchmark(Protocol):
    """A benchmark of prompt-following: a module with these names."""

    @property
    def NAME(self) -> str:
        """By which it is found; names its folder of data and of results."""

    @property
    def TITLE(self) -> str:
        """For people."""

    @property
    def HEADLINE(self) -> str:
        """The key of `aggregate` that tables show."""

    @property
    def SCALE(self) -> float:
        """What tables multiply figures by."""

    @property
    def PICTURES(self) -> int:
        """How many pictures the authors draw for each prompt."""

    @property
    def REFERENCE(self) -> str:
        """Which version of the authors' code the rule is."""

    def load(self, path: Path, /) -> list[Record]:
        """The prompts, each with `id`, `prompt` and `category`. Raises UserError: the data are others."""

    def picture_ids(self, record: Record, count: int, /) -> list[str]:
        """The ids of a prompt's pictures: their paths, without an ending, in the authors' layout."""

    def checks(self, record: Record, /) -> Sequence[Check]:
        """What is found out about each of a prompt's pictures."""

    def score(self, found: Found, record: Record, /) -> Score:
        """What a picture is worth; a value of NaN is left out of means. Raises UserError: something is not known."""

    def aggregate(self, records: Sequence[Record], scores: Sequence[Score], /) -> dict[str, float]:
        """The figures, the headline first; a record and a score for each picture, those of a prompt in order."""

    def read_results(self, path: Path, records: Sequence[Record], /) -> dict[str, Found]:
        """What the authors' code wrote about pictures, by their ids. Raises UserError: the file is another."""


@runtime_checkable
class PartsOfOne(Protocol):
    """A benchmark whose authors keep the pictures of a prompt as four quarters of one file."""

    def whole_id(self, record: Record, /) -> str: ...


@runtime_checkable
class RenamesObjects(Protocol):
    """A benchmark that calls some classes of objects otherwise than detectors do: its names by theirs."""

    @property
    def LABELS(self) -> Mapping[str, str]: ...


@runtime_checkable
class NamesColours(Protocol):
    """A benchmark that asks for colours: the words, and the sentences that CLIP compares crops with."""

    @property
    def COLOURS(self) -> Sequence[str]: ...
    @property
    def COLOUR_TEXTS(self) -> Sequence[str]: ...


@runtime_checkable
class HasResultsRow(Protocol):
    """A benchmark whose authors' own summary reads a line for each picture."""

    def results_row(self, picture: str, found: Found, score: Score, record: Record, /) -> dict[str, Any]: ...


def check_id(picture: str, name: str) -> str:
    """The id of what is asked of a picture, in files of answers."""
    return f"{picture}#{name}"


def mean(values: Sequence[float]) -> float:
    """The mean, added up in order; NaN of none."""
    return sum(values) / len(values) if values else math.nan


def part_means(values: Sequence[float], parts: Sequence[str]) -> dict[str, float]:
    """The mean of each part, in the order in which parts come; values that are NaN are left out."""
    members: dict[str, list[float]] = {}
    for value, part in zip(values, parts, strict=True):
        if not math.isnan(value):
            members.setdefault(part, []).append(value)
    return {part: mean(those) for part, those in members.items()}


def weighted_interval(
    values: Sequence[float],
    prompts: Sequence[Hashable],
    parts: Sequence[str],
    weights: Mapping[str, float] | None = None,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of a weighted mean of parts' means; (nan, nan) of nothing.

    Prompts are resampled whole, with all their pictures, within their part. Parts weigh the same unless `weights` says
    otherwise; values that are NaN are left out.
    """
    sums: dict[str, dict[Hashable, list[float]]] = {}
    for value, prompt, part in zip(values, prompts, parts, strict=True):
        if not math.isnan(value):
            sums.setdefault(part, {}).setdefault(prompt, []).append(value)
    if not sums:
        return math.nan, math.nan
    generator = np.random.default_rng(seed)
    share = weights or dict.fromkeys(sums, 1 / len(sums))
    total = np.zeros(RESAMPLES)
    for part, members in sums.items():
        totals = np.array([sum(each) for each in members.values()])
        sizes = np.array([len(each) for each in members.values()])
        times = generator.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=RESAMPLES)
        total += share.get(part, 0.0) * (times @ totals) / (times @ sizes)
    low, high = np.percentile(total, (2.5, 97.5))
    return float(low), float(high)
