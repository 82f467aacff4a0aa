"""The few figures that sum up a run, each with the baseline that gives it meaning; and all of them as table rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vargpt_lightning.evaluation.protocols import TRAIN

ENOUGH_MARGIN = 2.0  # standard errors
Metrics = Mapping[str, Any]


def percent(value: float | None, digits: int = 1) -> str:
    """A share as text: "53.1 %", "0.35 %" for small ones, "100 %"; a dash for none."""
    if value is None:
        return "–"
    if 0 < value < 0.01:
        digits = 2
    text = f"{100 * value:.{digits}f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} %"


def number(value: float | None, digits: int = 1) -> str:
    """A number as text, a dash for none, a true minus sign."""
    return "–" if value is None or value != value else f"{value:.{digits}f}".replace("-", "−")


def heldout_scores(metrics: Metrics) -> dict[str, Mapping[str, Any]]:
    """The score of each closed kind of question on held-out pictures; kind -> fields of Score."""
    found = {}
    for kind, by_split in metrics.get("questions", {}).items():
        split = next((split for split in by_split if split != TRAIN), None)
        if split is not None and kind not in metrics.get("open_kinds", ()):
            found[kind] = by_split[split]
    return found


def headline(metrics: Metrics) -> list[dict[str, Any]]:
    """The figures to lead with: key, name, value, text, baseline (text), and good (true, false or null)."""
    figures = [*_drawing_figures(metrics)]
    scores = heldout_scores(metrics)
    if scores:
        beaten = sum(score["margin"] >= ENOUGH_MARGIN for score in scores.values())
        figures.append(
            {
                "key": "questions",
                "name": "questions on held-out pictures",
                "value": beaten / len(scores),
                "text": f"{beaten} of {len(scores)} kinds",
                "baseline": "answered above the majority answer by two standard errors",
                "good": beaten == len(scores),
            }
        )
    switch = metrics.get("mode_switch", {})
    for key, name, wanted in (
        ("drawing_prompts", "requests answered with a picture", "98 % or more"),
        ("questions", "questions answered with a picture", "1 % or less"),
    ):
        rate = switch.get(key, {}).get("rate")
        if rate is not None:
            good = rate >= 0.98 if key == "drawing_prompts" else rate <= 0.01
            figures.append(
                {
                    "key": f"switch_{key}",
                    "name": name,
                    "value": rate,
                    "text": percent(rate),
                    "baseline": f"wanted: {wanted}",
                    "good": good,
                }
            )
    return figures


def _drawing_figures(metrics: Metrics) -> list[dict[str, Any]]:
    train = metrics.get("drawings", {}).get(TRAIN)
    if not train:
        return []
    figures = []
    found = train.get("identification")
    if found:
        for k in (1, 5):
            figures.append(
                {
                    "key": f"identification_{k}",
                    "name": f"identification at {k}",
                    "value": found[f"rate_{k}"],
                    "text": percent(found[f"rate_{k}"]),
                    "baseline": f"chance {percent(found[f'chance_{k}'], 2)}",
                    "good": found[f"low_{k}"] > found[f"chance_{k}"],
                }
            )
    baselines = metrics.get("baselines", {})
    kid, limit = train.get("kid_x1000"), baselines.get("blur", {}).get("kid_x1000")
    fine = baselines.get("blur_fine", {}).get("kid_x1000")
    slighter = f", slightly blurred {number(fine)}" if fine is not None else ""
    if kid is not None and kid == kid:
        figures.append(
            {
                "key": "kid",
                "name": f"KID × 1000 ({metrics['features']['name']})",
                "value": kid,
                "text": number(kid),
                "baseline": f"blurred real pictures {number(limit)}{slighter}",
                "good": limit is not None and kid < limit,
            }
        )
    return figures


def table(metrics: Metrics) -> list[dict[str, Any]]:
    """All image figures as rows of texts: label, kind ("model" or "baseline"), pictures, kid, fd, id_1, id_5, ..."""
    rows = []
    names = {TRAIN: "drawings for training prompts"}
    for split, figures in metrics.get("drawings", {}).items():
        rows.append(_row(names.get(split, "drawings for held-out prompts"), "model", figures))
    for figures in metrics.get("baselines", {}).values():
        rows.append(_row(figures["label"], "baseline", figures))
    first = next((row for row in metrics.get("drawings", {}).values() if row.get("identification")), None)
    if first:
        found = first["identification"]
        chance = {"rate_1": found["chance_1"], "rate_5": found["chance_5"]}
        rows.append(_row("a picture picked at random", "baseline", {"identification": chance}))
    return rows


def _row(label: str, kind: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    found = figures.get("identification", {})
    error = figures.get("kid_x1000_error")
    return {
        "label": label,
        "kind": kind,
        "pictures": figures.get("pictures", ""),
        "kid": number(figures.get("kid_x1000")),
        "kid_error": "" if error is None or error != error else f"± {number(error)}",
        "fd": number(figures.get("fd")),
        "fd_marked": bool(figures.get("fd_few_samples")),
        "id_1": percent(found.get("rate_1"), 2 if kind == "baseline" else 1),
        "id_5": percent(found.get("rate_5"), 2 if kind == "baseline" else 1),
    }
