"""Scores of answers: exact match per kind of question, beside what the commonest answer alone would get. No torch."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vargpt_lightning.evaluation.base.protocols import TRAIN
from vargpt_lightning.utils.heldout import HELDOUT, binomial_error, margin, wilson

OPEN_KINDS = ("name",)
"""Kinds without a list of possible answers; they are shown apart."""
CONFUSED_KINDS = ("category", "subcategory")
OTHER = "(another answer)"

Rows = Sequence[Mapping[str, Any]]
"""Rows of answers.jsonl: kind, split, expected, answer, drew, ..."""


def normalise(text: str) -> str:
    """The answer without what does not matter: case, punctuation, accents' encoding, repeated spaces."""
    text = unicodedata.normalize("NFKC", text).casefold().replace("&", " and ")
    return " ".join(re.sub(r"[^\w\s]|_", " ", text).split())


def chosen_letter(answer: str) -> str | None:
    """The letter of a choice: the answer is the letter alone, or holds one letter in brackets, as in "dog (B)"."""
    alone = normalise(answer).upper()
    found = {alone} if len(alone) == 1 else set(re.findall(r"\(([A-Z])\)", answer))
    return found.pop() if len(found) == 1 else None


def is_right(answer: str, expected: str) -> bool:
    """Exact match after `normalise`, and of a choice's letter with or without its name; an empty answer is wrong."""
    if len(expected) == 1 and expected.isupper():
        return chosen_letter(answer) == expected
    return bool(normalise(answer)) and normalise(answer) == normalise(expected)


@dataclass(frozen=True)
class Score:
    """How often one kind of question was answered rightly.

    `baseline` is the accuracy of always giving one answer: the commonest of the training questions or of these
    questions, whichever is right more often here. `standard_error` is the binomial one, sqrt(p (1 - p) / n);
    `margin` is how many standard errors lie between accuracy and baseline, by the larger of the errors at the two.
    `low` and `high` are the 95 % Wilson interval. `text_alone` is the accuracy of giving each question's text its own
    commonest answer among the training questions: the most that a model without the pictures can learn from them.
    """

    n: int
    right: int
    accuracy: float
    standard_error: float
    low: float
    high: float
    baseline: float
    baseline_answer: str
    margin: float
    text_alone: float | None = None


def score(
    rows: Rows,
    training_answers: Mapping[str, int] | None = None,
    training_prompts: Mapping[str, Mapping[str, int]] | None = None,
) -> Score:
    """Scores rows of one kind; `training_answers` counts the right answers of the training questions.

    `training_prompts` counts them for each question's text.

    Raises ValueError when there are no rows.
    """
    if not rows:
        raise ValueError("rows: got none, expected at least one answered question")
    n, right = len(rows), sum(is_right(row["answer"], row["expected"]) for row in rows)
    accuracy = right / n
    baseline, answer = _majority(rows, training_answers or {})
    low, high = wilson(right, n)
    error = binomial_error(accuracy, n)
    alone = _text_alone(rows, answer, training_prompts) if training_prompts else None
    return Score(n, right, accuracy, error, low, high, baseline, answer, margin(accuracy, baseline, n), alone)


def _majority(rows: Rows, training_answers: Mapping[str, int]) -> tuple[float, str]:
    here = Counter(normalise(row["expected"]) for row in rows)
    known: Counter[str] = Counter()
    for answer, count in training_answers.items():
        known[normalise(answer)] += count
    spelling = {normalise(row["expected"]): str(row["expected"]) for row in reversed(rows)}
    # Ties are settled by the alphabet, so that a rescored run says the same.
    candidates = [min(known, key=lambda a: (-known[a], a))] if known else []
    candidates.append(min(here, key=lambda a: (-here[a], a)))
    best = max(candidates, key=lambda a: here[a])
    return here[best] / len(rows), spelling.get(best, best)


def _text_alone(rows: Rows, otherwise: str, training_prompts: Mapping[str, Mapping[str, int]]) -> float:
    """The accuracy of each text's commonest training answer; of a text that is new, the kind's commonest."""
    said = {text: min(answers, key=lambda a: (-answers[a], a)) for text, answers in training_prompts.items()}
    return sum(is_right(said.get(row["prompt"], otherwise), row["expected"]) for row in rows) / len(rows)


def score_kinds(
    rows: Rows,
    training_answers: Mapping[str, Mapping[str, int]] | None = None,
    training_prompts: Mapping[str, Mapping[str, Mapping[str, int]]] | None = None,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Scores of every kind on every split, and on all held-out splits together: kind -> split -> fields of Score."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for kind in dict.fromkeys(row["kind"] for row in rows):
        of_kind = [row for row in rows if row["kind"] == kind]
        for split in dict.fromkeys(row["split"] for row in of_kind):
            known = (training_answers or {}).get(kind)
            of_split = [row for row in of_kind if row["split"] == split]
            found.setdefault(kind, {})[split] = asdict(score(of_split, known, (training_prompts or {}).get(kind)))
        heldout = [row for row in of_kind if row["split"] != TRAIN]
        if heldout:
            texts = (training_prompts or {}).get(kind)
            found[kind][HELDOUT] = asdict(score(heldout, (training_answers or {}).get(kind), texts))
    return found


def confusion(rows: Rows) -> dict[str, Any]:
    """Which answer was given for which: labels, and counts[expected][answered]; the last column is any other answer."""
    labels = sorted({str(row["expected"]) for row in rows})
    column = {normalise(label): place for place, label in enumerate(labels)}
    counts = [[0] * (len(labels) + 1) for _ in labels]
    for row in rows:
        counts[labels.index(str(row["expected"]))][column.get(normalise(row["answer"]), len(labels))] += 1
    return {"labels": labels, "columns": [*labels, OTHER], "counts": counts}


def confusions(rows: Rows, heldout: bool = True) -> dict[str, dict[str, Any]]:
    """The confusion of each kind that has one, on held-out pictures (or on training pictures)."""
    found = {}
    for kind in CONFUSED_KINDS:
        of_kind = [row for row in rows if row["kind"] == kind and (row["split"] != TRAIN) == heldout]
        if of_kind:
            found[kind] = confusion(of_kind)
    return found


def share(flags: Iterable[bool]) -> dict[str, Any]:
    """How many of how many, their share (null of none), and its 95 % Wilson interval."""
    values = list(flags)
    low, high = wilson(sum(values), len(values))
    rate = sum(values) / len(values) if values else None
    return {"n": len(values), "count": sum(values), "rate": rate, "low": low, "high": high}


def turn_switch(conversations: Rows) -> dict[str, Any]:
    """How often a turn of a conversation was answered with a picture if it asked for one, and without if not.

    The share of all turns, with n and interval, and of each turn by its place, from 1.
    """
    right = [[turn["drew"] == turn["wanted"] for turn in row["turns"]] for row in conversations]
    longest = max((len(hits) for hits in right), default=0)
    by_turn = {str(place + 1): share(hits[place] for hits in right if place < len(hits)) for place in range(longest)}
    return {**share(hit for hits in right for hit in hits), "by_turn": by_turn}


def mode_switch(answers: Rows, drawings: Rows) -> dict[str, dict[str, Any]]:
    """How often requests to draw were answered with a picture, and how often questions were."""
    return {
        "drawing_prompts": share(bool(row["drew"]) for row in drawings),
        "questions": share(bool(row["drew"]) for row in answers),
    }
