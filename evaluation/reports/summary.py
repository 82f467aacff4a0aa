"""A run in one sentence, and one or several runs as the table of the README: both of the same lines. No torch.

Of several runs, such as three seeds of one experiment, each number is the range from the smallest to the largest.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vargpt_lightning.evaluation.base.figures import SKILL_NAMES, number, percent
from vargpt_lightning.evaluation.base.protocols import TRAIN
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.heldout import beaten, heldout_scores

KIND_NAMES = {"category": "category", "subcategory": "subcategory", "colour": "main colour", "yesno": "yes or no",
              "choice": "name out of four", "name": "open naming", "own": "questions of your data",
              "scene_colour": "colour of a thing", "scene_count": "how many", "scene_relation": "what stands where",
              "scene_present": "is it there", "scene_what": "what is it"}  # fmt: skip
COLUMNS = ("metric", "value", "for comparison")
UNLIKE = "the runs were not all evaluated alike; expected finished runs of one experiment"
Metrics = Mapping[str, Any]


@dataclass(frozen=True)
class Value:
    """A number of a line: a share in percent, or (`digits` alone) a plain number."""

    number: float
    digits: int = 1
    share: bool = True

    def text(self, *others: Value) -> str:
        """The number, or with other runs' the range of all."""
        values = sorted(each.number for each in (self, *others))
        low, high = (percent(v, self.digits) if self.share else number(v, self.digits) for v in (values[0], values[-1]))
        return low if low == high else f"{low.removesuffix(' %')} to {high}"


Part = str | Value


@dataclass(frozen=True)
class Line:
    """One line: what is measured, its value, and the value that gives it meaning; texts with numbers among them."""

    name: tuple[Part, ...]
    value: tuple[Part, ...]
    beside: tuple[Part, ...]


def lines(metrics: Metrics) -> list[Line]:
    """What a run's figures come to, as far as there are any."""
    return [
        *_composition_lines(metrics),
        *_drawing_lines(metrics),
        *_switch_lines(metrics),
        *_turn_lines(metrics),
        *_question_lines(metrics),
    ]


def markdown(runs: Sequence[Metrics], seeds: Sequence[int] = ()) -> str:
    """The lines of one or several runs as a Markdown table, and the sentence below it.

    Args:
        runs: their figures.
        seeds: theirs, for the table's head.

    Raises:
        UserError: the runs were not asked the same, so that their lines do not belong together.
    """
    said = f" (seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))})" if seeds else ""
    head = [COLUMNS[0] + said, *COLUMNS[1:]]
    rows = [[_together(parts) for parts in cells] for cells in _columns(runs)]
    table = ["| " + " | ".join(row) + " |" for row in [head, *rows]]
    return "\n".join([table[0], "|---" * len(head) + "|", *table[1:], "", *textwrap.wrap(sentence(*runs), 118)])


def sentence(*runs: Metrics) -> str:
    """Three figures in words: is it drawn as asked, when asked, and are questions answered better than by a guess.

    Empty where none of them was measured.
    """
    parts = [_sentence(metrics) for metrics in runs]
    if len({len(each) for each in parts}) > 1:
        raise UserError(UNLIKE)
    return "; ".join(_together(clauses) for clauses in zip(*parts, strict=True)) + "." if parts and parts[0] else ""


def _sentence(metrics: Metrics) -> list[tuple[Part, ...]]:
    clauses: list[tuple[Part, ...]] = []
    found = metrics.get("drawings", {}).get(TRAIN, {}).get("identification")
    if found:
        rate, chance = Value(found["rate_1"]), Value(found["chance_1"], 2)
        said = " of its drawings the nearest real picture is the one asked for (chance "
        clauses.append(("For ", rate, said, chance, ")"))
    asked = metrics.get("mode_switch", {})
    rates = [asked.get(key, {}).get("rate") for key in ("drawing_prompts", "questions")]
    if None not in rates:
        requests, questions = map(Value, rates)
        clauses.append((requests, " of requests to draw and ", questions, " of questions are answered with a picture"))
    scores = heldout_scores(metrics)
    if scores:
        above = round(beaten(scores)["value"] * len(scores))
        n = sum(score["n"] for score in scores.values())
        what = f" of {len(scores)} kinds of questions about held-out pictures ({n} questions) are answered better than "
        how = "by always giving the most frequent answer, by at least two standard errors"
        clauses.append((Value(above, 0, share=False), what + how))
    return clauses


def _composition_lines(metrics: Metrics) -> Iterator[Line]:
    found, ceiling = metrics.get("composition", {}), metrics.get("composition", {}).get("judge", {})
    for key, name in SKILL_NAMES.items():
        unseen, seen = (found.get(split, {}).get(key) for split in ("unseen", "seen"))
        if unseen and seen and unseen["rate"] is not None and seen["rate"] is not None:
            value = ("**", Value(unseen["rate"]), f"** of {unseen['n']}")
            yield Line((f"drawings of unseen combinations: {name}",), value, ("trained ones ", Value(seen["rate"])))
    if agreement := found.get("agreement", {}).get("all"):
        name = "answers about its own drawings of scenes that are what was asked for"
        yield Line((name,), ("**", Value(agreement["rate"]), f"** of {agreement['n']}"), ("goal: 85 %",))
    for of, name in (("real", "real scenes"), ("tokenizer", "scenes after the image tokenizer")):
        if ceiling.get(of):
            parts: list[Part] = []
            for key in ("colour", "shape", "count", "relation"):
                parts += [", " if parts else "", f"{key} ", Value(ceiling[of][key]["rate"])]
            yield Line((f"what the judge reads rightly on {name}",), tuple(parts), ("",))


def _drawing_lines(metrics: Metrics) -> Iterator[Line]:
    drawn, baselines = metrics.get("drawings", {}).get(TRAIN, {}), metrics.get("baselines", {})
    found, copies = drawn.get("identification"), baselines.get("reconstruction", {})
    if found:
        best = copies.get("identification", {}).get("rate_1")
        gallery = metrics.get("pictures", {}).get("gallery", "")
        name = f"drawings of the {found['n']} training pictures whose nearest of the {gallery} real pictures is the one"
        copied: tuple[Part, ...] = () if best is None else ("; the tokenizer's reconstructions ", Value(best))
        yield Line(
            (f"{name} asked for",),
            ("**", Value(found["rate_1"]), "** (top 5: **", Value(found["rate_5"]), "**)"),
            ("chance ", Value(found["chance_1"], 2), " (", Value(found["chance_5"], 2), ")", *copied),
        )
    kid = drawn.get("kid_x1000")
    if kid is not None:
        name = f"KID × 1000 ({metrics.get('features', {}).get('name', '')}) of drawings"
        yield Line((name,), ("**", Value(kid, share=False), "**"), _distances(metrics))


def _distances(metrics: Metrics) -> tuple[Part, ...]:
    """KID of the baselines that there are."""
    baselines, sigma = metrics.get("baselines", {}), (metrics.get("settings") or {}).get("blur_sigma", 2)
    named = {
        "blur": f"real pictures blurred with sigma {sigma:g}",
        "blur_fine": "slightly blurred",
        "reconstruction": "the tokenizer's reconstructions",
    }
    found: list[Part] = []
    for key in (key for key in named if key in baselines):
        found += ["; " if found else "", f"{named[key]}: ", Value(baselines[key]["kid_x1000"], share=False)]
    return tuple(found)


def _switch_lines(metrics: Metrics) -> Iterator[Line]:
    asked = metrics.get("mode_switch", {})
    for key, name, goal in (
        ("drawing_prompts", "requests answered with a picture", "98 %"),
        ("questions", "questions answered with a picture", "at most 1 %"),
    ):
        rate = asked.get(key, {}).get("rate")
        if rate is not None:
            yield Line((name,), ("**", Value(rate), "**"), (f"goal: {goal}",))


def _turn_lines(metrics: Metrics) -> Iterator[Line]:
    if turns := metrics.get("turn_switch"):
        name = f"turns of conversations ({turns['n']}) that draw if they should and only then"
        yield Line((name,), ("**", Value(turns["rate"]), "**"), ("goal: 95 %",))


def _question_lines(metrics: Metrics) -> Iterator[Line]:
    for kind, score in heldout_scores(metrics).items():
        yield _kind_line("held-out pictures", kind, score)
    for kind, by_split in metrics.get("questions", {}).items():
        score = by_split.get(TRAIN)
        if score and (kind in metrics.get("open_kinds", ()) or len(by_split) == 1):
            yield _kind_line("training pictures", kind, score)


def _kind_line(of: str, kind: str, score: Metrics) -> Line:
    value = (Value(score["accuracy"], 0), f" of {score['n']}")
    return Line((f"{of}, {KIND_NAMES.get(kind, kind)}",), value, ("most frequent answer ", Value(score["baseline"], 0)))


def _columns(runs: Sequence[Metrics]) -> Iterator[list[tuple[tuple[Part, ...], ...]]]:
    """For each line its name, value and comparison, each of all runs."""
    each = [lines(metrics) for metrics in runs]
    if not each or not each[0]:
        raise UserError("there are no metrics; expected runs that were evaluated")
    if len({len(found) for found in each}) > 1:
        raise UserError(UNLIKE)
    for same in zip(*each, strict=True):
        yield [tuple(getattr(line, key) for line in same) for key in ("name", "value", "beside")]


def _together(cells: Sequence[tuple[Part, ...]]) -> str:
    """One text of several runs' cells: words must be the same, numbers become a range."""
    found = []
    for parts in zip(*cells, strict=True):
        first, *others = parts
        if isinstance(first, Value):
            found.append(first.text(*others))
        elif any(other != first for other in others):
            raise UserError(f"the runs differ in what was asked: {sorted(set(map(str, parts)))}; expected the same")
        else:
            found.append(first)
    return "".join(found)
