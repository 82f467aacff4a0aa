"""The few figures that sum up a run, each with the baseline that gives it meaning; and all of them as table rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from vargpt_lightning.evaluation.base.protocols import TRAIN
from vargpt_lightning.utils.heldout import HELDOUT, beaten, heldout_scores, wilson

LESS_IS_BETTER = ("kid", "switch_questions")
HEADLINE_KEYS = (
    *("unseen_colour", "unseen_count", "unseen_pair", "unseen_edits"),
    *("identification_1", "identification_5", "kid", "questions", "switch_drawing_prompts", "switch_questions"),
)
"""The keys of all headline figures that there can be."""
SPLITS = {TRAIN: "drawings for training prompts", HELDOUT: "drawings for held-out prompts"}
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


def rate_text(rate: Any) -> dict[str, str]:
    """A rate with its interval and number, or the mean of the categories, as texts."""
    if isinstance(rate, Mapping) and rate["n"]:
        interval = f"{100 * rate['low']:.1f} – {100 * rate['high']:.1f}"
        return {"rate": percent(rate["rate"]), "interval": f"{interval}, n {rate['n']}"}
    return {"rate": percent(rate if isinstance(rate, float) else None), "interval": ""}


@dataclass
class Figure:
    """One headline figure: its value and text, the baseline in words, and whether (and how) it is good."""

    key: str
    name: str
    value: float | None
    text: str
    baseline: str
    good: bool
    verdict: str


def headline(metrics: Metrics) -> list[dict[str, Any]]:
    """The figures to lead with, each as the fields of Figure.

    Where the settings name an aim for a key, the verdict is about the aim, else about the baseline.
    """
    found = [
        *_composition_figures(metrics),
        *_edit_figures(metrics),
        *_drawing_figures(metrics),
        *_question_figures(metrics),
        *_switch_figures(metrics),
    ]
    aims = (metrics.get("settings") or {}).get("aims") or {}
    for figure in found:
        aim = aims.get(figure.key)
        if aim is not None and figure.value is not None:
            figure.good = figure.value <= aim if figure.key in LESS_IS_BETTER else figure.value >= aim
            shown = number(aim) if figure.key == "kid" else percent(aim)
            figure.verdict = f"aim {shown} {'reached' if figure.good else 'missed'}"
    return [asdict(figure) for figure in found]


SKILL_NAMES = {"colour": "shape and colour", "count": "thing and count", "pair": "two things and their relation"}


def _composition_figures(metrics: Metrics) -> Iterator[Figure]:
    """Drawings of combinations that were never trained, beside those that were."""
    found = metrics.get("composition", {})
    for key, name in SKILL_NAMES.items():
        unseen, seen = (found.get(split, {}).get(key) for split in ("unseen", "seen"))
        if unseen and unseen["rate"] is not None:
            beside = f"trained combinations {percent(seen['rate'])}" if seen else ""
            text, good = f"{percent(unseen['rate'])} of {unseen['n']}", unseen["rate"] >= 0.5
            verdict = "most are right" if good else "most are wrong"
            yield Figure(f"unseen_{key}", f"unseen {name}", unseen["rate"], text, beside, good, verdict)


def _edit_figures(metrics: Metrics) -> Iterator[Figure]:
    """Pictures recoloured to combinations that were never trained, beside those that were."""
    unseen, seen = (metrics.get("edits", {}).get(split, {}).get("both") for split in ("unseen", "seen"))
    if unseen and unseen["rate"] is not None:
        beside = f"trained combinations {percent(seen['rate'])}" if seen else ""
        text, good = f"{percent(unseen['rate'])} of {unseen['n']}", unseen["rate"] >= 0.5
        name, verdict = "unseen edits: colour asked for, shape kept", "most are right" if good else "most are wrong"
        yield Figure("unseen_edits", name, unseen["rate"], text, beside, good, verdict)


def _drawing_figures(metrics: Metrics) -> Iterator[Figure]:
    train, baselines = metrics.get("drawings", {}).get(TRAIN, {}), metrics.get("baselines", {})
    found = train.get("identification")
    for k in (1, 5) if found else ():
        rate, chance = found[f"rate_{k}"], found[f"chance_{k}"]
        good = found[f"low_{k}"] > chance
        verdict = "above chance" if good else "not above chance"
        baseline = f"chance {percent(chance, 2)}"
        yield Figure(f"identification_{k}", f"identification at {k}", rate, percent(rate), baseline, good, verdict)
    kid, limit = train.get("kid_x1000"), baselines.get("blur", {}).get("kid_x1000")
    if kid is not None and limit is not None:
        good = kid < limit
        verdict = "nearer than blurred" if good else "no nearer than blurred"
        if limit <= 0:  # an estimate below zero bounds nothing
            good, verdict = False, "too few pictures to tell"
        fine = baselines.get("blur_fine", {}).get("kid_x1000")
        slightly = "" if fine is None else f", slightly blurred {number(fine)}"
        baseline = f"blurred real pictures {number(limit)}{slightly}"
        yield Figure("kid", f"KID × 1000 ({metrics['features']['name']})", kid, number(kid), baseline, good, verdict)


def _question_figures(metrics: Metrics) -> Iterator[Figure]:
    scores = heldout_scores(metrics)
    if scores:
        yield Figure("questions", "kinds of questions answered", **beaten(scores))


def _switch_figures(metrics: Metrics) -> Iterator[Figure]:
    """Drawing when asked to, and only then."""
    asked = metrics.get("mode_switch", {})
    requests, questions = asked.get("drawing_prompts", {}).get("rate"), asked.get("questions", {}).get("rate")
    if requests is not None:
        verdict = "as wanted" if requests >= 0.98 else "too few"
        name, text, wanted = "requests answered with a picture", percent(requests), "wanted: 98 % or more"
        yield Figure("switch_drawing_prompts", name, requests, text, wanted, requests >= 0.98, verdict)
    if questions is not None:
        verdict = "as wanted" if questions <= 0.01 else "too many"
        name, text, wanted = "questions answered with a picture", percent(questions), "wanted: 1 % or less"
        yield Figure("switch_questions", name, questions, text, wanted, questions <= 0.01, verdict)


def heldout_drawings(metrics: Metrics) -> dict[str, Any]:
    """The figures of the drawings for all held-out prompts; of older evaluations, which have the splits alone, the
    counts added up. Empty where none was asked for."""
    by_split = metrics.get("drawings", {})
    if HELDOUT in by_split:
        return dict(by_split[HELDOUT])
    parts = [figures for split, figures in by_split.items() if split != TRAIN]
    found: dict[str, Any] = {"pictures": sum(part.get("pictures", 0) for part in parts)} if parts else {}
    for key in ("same_category", "same_subcategory"):
        if parts and all(key in part for part in parts):
            n, count = (sum(part[key][name] for part in parts) for name in ("n", "count"))
            low, high = wilson(count, n)
            counted = {"n": n, "count": count, "rate": count / n if n else None, "low": low, "high": high}
            found[key] = counted | {"baseline": parts[0][key]["baseline"]}
    return found


def table(metrics: Metrics) -> list[dict[str, Any]]:
    """All image figures as rows of texts: label, kind ("model" or "baseline"), pictures, kid, fd, id_1, id_5, ..."""
    rows = []
    for split, figures in by_kind_of_split(metrics.get("drawings", {})).items():
        rows.append(_row(SPLITS.get(split, f"drawings for held-out prompts ({split})"), "model", figures))
    for figures in metrics.get("baselines", {}).values():
        rows.append(_row(figures["label"], "baseline", figures))
    first = next((row for row in metrics.get("drawings", {}).values() if row.get("identification")), None)
    if first:
        found = first["identification"]
        chance = {"rate_1": found["chance_1"], "rate_5": found["chance_5"]}
        rows.append(_row("a picture picked at random", "baseline", {"identification": chance}))
    return rows


def judge_table(metrics: Metrics) -> list[dict[str, Any]]:
    """What judges say as rows of texts: judge, title, label of the drawings, pictures, mean, low, high."""
    rows = []
    for name, said in metrics.get("judges", {}).items():
        for split, figures in by_kind_of_split(said["splits"]).items():
            label = SPLITS.get(split, f"drawings for held-out prompts ({split})")
            texts = {key: number(figures.get(key), 3) for key in ("mean", "low", "high")}
            pictures = f"{figures['pictures']} of {figures['prompts']}"
            rows.append({"judge": name, "title": said["title"], "label": label, "pictures": pictures, **texts})
    return rows


def by_kind_of_split(by_split: Mapping[str, Any]) -> dict[str, Any]:
    """Training pictures and all held-out ones; of older evaluations, which never put these together, every split."""
    shown = (TRAIN, HELDOUT) if HELDOUT in by_split else tuple(by_split)
    return {split: by_split[split] for split in shown if split in by_split}


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
