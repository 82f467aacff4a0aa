"""Which of several scored drawings of one prompt make pairs: the best with the worst, where the judge is sure of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["kept", "tied", "unsure", "single"]
"""What came of a prompt: pairs; drawings that score alike; scores too near, or none good enough; fewer than two
pictures."""


@dataclass(frozen=True)
class PairRules:
    """When two drawings make a pair.

    Args:
        margin: the scores must differ by more than this.
        least: what the chosen one must score; None for anything.
        each: pairs of a prompt, at most; a drawing is in one of them.
    """

    margin: float = 0.0
    least: float | None = None
    each: int = 1


def pairs_of(scores: Sequence[float], rules: PairRules) -> tuple[Outcome, list[tuple[int, int]]]:
    """Return what came of a prompt, and the pairs as places of the chosen and the rejected drawing.

    The best goes with the worst, the second best with the second worst, and so on; of equal scores the first drawing
    counts as the better one.
    """
    if len(scores) < 2:
        return "single", []
    order = sorted(range(len(scores)), key=lambda place: (-scores[place], place))
    if scores[order[0]] == scores[order[-1]]:
        return "tied", []
    found: list[tuple[int, int]] = []
    for chosen, rejected in zip(order[: len(order) // 2], reversed(order), strict=False):
        good = rules.least is None or scores[chosen] >= rules.least
        if good and scores[chosen] - scores[rejected] > rules.margin and len(found) < rules.each:
            found.append((chosen, rejected))
    return ("kept" if found else "unsure"), found
