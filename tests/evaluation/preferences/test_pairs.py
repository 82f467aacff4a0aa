"""Which drawings of a prompt make pairs."""

from __future__ import annotations

import pytest

from vargpt_lightning.evaluation.preferences.pairs import PairRules, pairs_of

CASES = [
    ("best with worst", [0.2, 0.9, 0.5], PairRules(), "kept", [(1, 0)]),
    ("of equals the first is better", [0.5, 0.5, 0.1], PairRules(), "kept", [(0, 2)]),
    ("second best with second worst", [4, 3, 2, 1], PairRules(each=2), "kept", [(0, 3), (1, 2)]),
    ("as many as differ", [4, 3, 2.9, 1], PairRules(margin=0.5, each=2), "kept", [(0, 3)]),
    ("a drawing is in one pair", [3, 2, 1], PairRules(each=3), "kept", [(0, 2)]),
    ("all alike", [0.5, 0.5], PairRules(), "tied", []),
    ("too near", [0.5, 0.6], PairRules(margin=0.1), "unsure", []),
    ("none good enough", [0.5, 0.1], PairRules(least=0.6), "unsure", []),
    ("one picture", [0.5], PairRules(), "single", []),
    ("no picture", [], PairRules(), "single", []),
]


@pytest.mark.parametrize(
    ("scores", "rules", "outcome", "pairs"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_the_best_goes_with_the_worst(scores, rules, outcome, pairs) -> None:
    assert pairs_of(scores, rules) == (outcome, pairs)
