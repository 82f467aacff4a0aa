"""Figures of held-out pictures: of all of them, whichever split they are in. Imports nothing heavy.

An evaluation scores every split, and beside them `heldout`, which is all that nothing was trained on (val and test).
Headline, tables, report and README read this one. Evaluations made before it was written get it when they are read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

TRAIN = "train"
HELDOUT = "heldout"
ENOUGH_MARGIN = 2.0  # standard errors

Figures = Mapping[str, Any]


def wilson(right: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson score interval of a share; it stays inside [0, 1] and has a width at 0 and 1 too."""
    if n == 0:
        return 0.0, 1.0
    p, z2 = right / n, z * z / n
    centre, half = p + z2 / 2, z * math.sqrt(p * (1 - p) / n + z2 / (4 * n))
    return max(0.0, (centre - half) / (1 + z2)), min(1.0, (centre + half) / (1 + z2))


def binomial_error(p: float, n: int) -> float:
    """Standard error of a share, sqrt(p (1 - p) / n)."""
    return math.sqrt(p * (1 - p) / n)


def margin(accuracy: float, baseline: float, n: int) -> float:
    """Standard errors between accuracy and baseline, by the larger of the errors at the two; 0 where both are exact."""
    scale = max(binomial_error(accuracy, n), binomial_error(baseline, n))
    return (accuracy - baseline) / scale if scale else 0.0


def heldout_scores(metrics: Figures) -> dict[str, Figures]:
    """The score of each closed kind of question on all held-out pictures; kind -> fields of `questions.Score`."""
    found = {}
    for kind, by_split in metrics.get("questions", {}).items():
        apart = [score for split, score in by_split.items() if split not in (TRAIN, HELDOUT)]
        score = by_split.get(HELDOUT) or (_together(apart) if apart else None)
        if score is not None and kind not in metrics.get("open_kinds", ()):
            found[kind] = score
    return found


def beaten(scores: Mapping[str, Figures]) -> dict[str, Any]:
    """How many kinds of questions are answered better than by the majority answer: fields of `figures.Figure`."""
    above, n = sum(score["margin"] >= ENOUGH_MARGIN for score in scores.values()), len(scores)
    asked = sum(score["n"] for score in scores.values())
    return {
        "value": above / n,
        "text": f"{above} of {n}",
        "baseline": f"above the majority answer by two standard errors, on all {asked} held-out questions",
        "good": above == n,
        "verdict": "all of them" if above == n else "not all of them",
    }


def with_heldout(metrics: dict[str, Any]) -> dict[str, Any]:
    """Figures of an evaluation with `heldout` in them; those of older releases, whose headline was of one split alone,
    get it here, and their headline is made anew."""
    scores = heldout_scores(metrics)
    if not scores or all(HELDOUT in metrics["questions"][kind] for kind in scores):
        return metrics
    asked = {kind: {**by_split} for kind, by_split in metrics["questions"].items()}
    for kind, score in scores.items():
        asked[kind][HELDOUT] = score
    headline = [_anew(item, scores, metrics) for item in metrics.get("headline", [])]
    return {**metrics, "questions": asked, "headline": headline}


def _anew(item: dict[str, Any], scores: Mapping[str, Figures], metrics: Figures) -> dict[str, Any]:
    if item.get("key") != "questions":
        return item
    found = {**item, **beaten(scores)}
    aim = ((metrics.get("settings") or {}).get("aims") or {}).get("questions")
    if aim is not None:
        found["good"] = found["value"] >= aim
        found["verdict"] = f"aim {100 * aim:g} % {'reached' if found['good'] else 'missed'}"
    return found


def _together(scores: Sequence[Figures]) -> Figures:
    """One score of several splits'. The majority answer of each split counts there, so the baseline is never lower
    than the one answer's that is commonest in all."""
    if len(scores) == 1:
        return scores[0]
    n, right = sum(score["n"] for score in scores), sum(score["right"] for score in scores)
    baseline = sum(score["n"] * score["baseline"] for score in scores) / n
    low, high = wilson(right, n)
    return {
        **{"n": n, "right": right, "accuracy": right / n, "standard_error": binomial_error(right / n, n)},
        **{"low": low, "high": high, "baseline": baseline},
        "baseline_answer": max(scores, key=lambda score: score["n"]).get("baseline_answer", ""),
        "margin": margin(right / n, baseline, n),
    }
