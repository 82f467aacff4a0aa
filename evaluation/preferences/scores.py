"""Scores of drawings by a judge, appended as they come: killed, the same command goes on behind the last one.

OUT/scores/<judge>.jsonl     id, key (of the drawing and its words) and score
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from vargpt_lightning.evaluation.base.files import file_stem, rgb, short_hash
from vargpt_lightning.evaluation.harness.outputs import read_rows
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import append_jsonl

if TYPE_CHECKING:  # scores are read without what scores
    from vargpt_lightning.inference.sources import Scorer

SCORES = "scores"
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Candidate:
    """A drawing to score: its id, the prompt's text, its file, and what tells it from another drawing of that id."""

    id: str
    text: str
    file: Path
    key: str


def scored(
    candidates: Sequence[Candidate],
    judge: str,
    scorer: Callable[[], Scorer],
    out: Path,
    *,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Return the score of each candidate by its id.

    Args:
        judge: the scorer's name.
        scorer: makes it; called if there is anything to score.
        out: the folder that keeps scores.

    Raises:
        UserError: the judge gave what is no number, or not one for each drawing.
    """
    rows = out / SCORES / f"{file_stem(judge)}.jsonl"
    keys = {each.id: short_hash(judge, each.id, each.text, each.key) for each in candidates}
    known = {row["key"]: float(row["score"]) for row in read_rows(rows) if {"key", "score"} <= row.keys()}
    left = [each for each in candidates if keys[each.id] not in known]
    if not left:
        return {each.id: known[keys[each.id]] for each in candidates}
    score = scorer()
    for start in range(0, len(left), batch_size):
        if progress is not None:
            progress("judging", start, len(left))
        batch = left[start : start + batch_size]
        found = _checked(judge, score([_opened(each.file) for each in batch], [each.text for each in batch]), batch)
        append_jsonl(rows, [{"id": each.id, "key": keys[each.id], "score": found[each.id]} for each in batch])
        known |= {keys[each.id]: found[each.id] for each in batch}
    if progress is not None:
        progress("judging", len(left), len(left))
    return {each.id: known[keys[each.id]] for each in candidates}


def _checked(judge: str, scores: Sequence[float], batch: Sequence[Candidate]) -> Mapping[str, float]:
    if len(scores) != len(batch):
        raise UserError(f"judge {judge!r}: got {len(scores)} scores, expected one for each of {len(batch)} drawings")
    for each, score in zip(batch, scores, strict=True):
        if not math.isfinite(score):
            raise UserError(f"judge {judge!r}: got {score} for {each.file}, expected a number")
    return {each.id: float(score) for each, score in zip(batch, scores, strict=True)}


def _opened(file: Path) -> Image.Image:
    with Image.open(file) as picture:
        return rgb(picture)
