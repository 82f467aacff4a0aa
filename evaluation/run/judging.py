"""Drawings of an evaluation's folder put before judges, and what these say by split."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

from vargpt_lightning.evaluation import judges
from vargpt_lightning.evaluation.base.benchmark import mean_interval
from vargpt_lightning.evaluation.base.files import open_picture
from vargpt_lightning.evaluation.base.judge import Drawn, Verdict
from vargpt_lightning.evaluation.base.protocols import TRAIN, RealPicture
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.heldout import HELDOUT

Row = Mapping[str, Any]


def judged(
    out: Path, names: Sequence[str], drawings: Sequence[Row], pictures: Sequence[Row]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the judges' figures, name to split to mean score, and a row for each verdict.

    Means are over the requests that brought a picture; each figure says how many requests there were.

    Raises:
        UserError: there is no such judge, or what it returns are no verdicts.
    """
    answered = [row for row in drawings if row.get("files")]
    drawn = [Drawn(row["id"], row["prompt"], open_picture(out, row), row["picture"]) for row in answered]
    about = ("name", "split", "category", "subcategory")
    real = [RealPicture(row["id"], open_picture(out, row), *(row.get(key, "") for key in about)) for row in pictures]
    figures: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    for name in names:
        judge = judges.get(name)
        verdicts = _checked(name, judge.judge(drawn, real), len(drawn))
        rows += [
            {"id": each.id, "judge": name, "score": float(verdict.score), "label": verdict.label}
            for each, verdict in zip(drawn, verdicts, strict=True)
        ]
        figures[name] = {"title": judge.TITLE, "splits": _by_split(drawings, answered, verdicts)}
    return figures, rows


def _checked(name: str, verdicts: Any, count: int) -> list[Verdict]:
    """The verdicts, if they are some: one for each drawing, with a finite score."""
    found = list(verdicts) if isinstance(verdicts, Sequence) else [verdicts]
    if len(found) != count:
        raise UserError(f"judge {name!r} returned {len(found)} verdicts for {count} drawings; expected one for each")
    for verdict in found:
        if not isinstance(verdict, Verdict):
            raise UserError(f"judge {name!r} returned {verdict!r}; expected a Verdict of evaluation.base.judge")
        if not isinstance(verdict.score, Real) or not math.isfinite(verdict.score):
            raise UserError(f"judge {name!r}: the score {verdict.score!r}; expected a finite number")
    return found


def _by_split(drawings: Sequence[Row], answered: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """The figures of each split, and of all held-out ones together."""
    splits = list(dict.fromkeys(row["split"] for row in drawings))
    groups = {split: {split} for split in splits}
    if heldout := {split for split in splits if split != TRAIN}:
        groups[HELDOUT] = heldout
    found = {}
    for split, inside in groups.items():
        scores = [
            float(verdict.score) for row, verdict in zip(answered, verdicts, strict=True) if row["split"] in inside
        ]
        low, high = mean_interval(scores)
        mean = sum(scores) / len(scores) if scores else None
        prompts = sum(row["split"] in inside for row in drawings)
        found[split] = {"prompts": prompts, "pictures": len(scores), "mean": mean, "low": low, "high": high}
    return found
