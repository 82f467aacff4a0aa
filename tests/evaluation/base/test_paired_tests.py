"""The tests of differences against values that can be counted by hand, and against what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vargpt_lightning.evaluation.base.paired_tests import (
    BOOTSTRAP,
    MCNEMAR,
    bootstrap_means,
    bootstrap_p,
    holm,
    mcnemar_exact,
    paired,
    questions_by_discordant,
    questions_by_spread,
)


@pytest.mark.parametrize(
    ("better", "worse", "p"),
    [
        (10, 3, 2 * (1 + 13 + 78 + 286) / 2**13),
        (3, 10, 2 * (1 + 13 + 78 + 286) / 2**13),
        (0, 5, 2 / 2**5),
        (4, 4, 1.0),
        (0, 0, 1.0),
        (60_000, 61_000, 0.00407963758),  # SciPy's binomtest, where a sum of large binomials would overflow
    ],
)
def test_mcnemar_is_the_coin_throws_tail(better: int, worse: int, p: float) -> None:
    assert mcnemar_exact(better, worse) == pytest.approx(p, rel=1e-4)


def test_holm_steps_down() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]) == [1.0, 1.0] and holm([]) == [] and holm([0.04]) == [0.04]


def test_questions_needed_are_those_of_the_formulas() -> None:
    # (1.95996 sqrt(0.3) + 0.84162 sqrt(0.29))^2 / 0.01 = 233.0, and 7.8489 x 0.36 / 0.01 = 282.6
    assert questions_by_discordant(0.2, 0.1) == 234 == questions_by_discordant(0.1, 0.2)
    assert questions_by_spread(0.1, 0.6 / math.sqrt(100), 100) == 283
    assert questions_by_discordant(0.1, 0.1) == questions_by_spread(0.0, 0.1, 9) == math.inf


def test_the_bootstrap_has_the_spread_that_its_groups_have() -> None:
    values = np.random.default_rng(1).normal(size=400)
    alone = bootstrap_means(values, np.ones(400, dtype=int), resamples=4000)
    assert alone.mean() == pytest.approx(values.mean(), abs=0.01)
    assert alone.std() == pytest.approx(values.std() / 20, rel=0.05)
    # four times each: as many questions as 1600, and as much knowledge as 400
    fourfold = bootstrap_means(4 * values, np.full(400, 4), resamples=4000)
    assert fourfold.std() == pytest.approx(alone.std(), rel=0.05)


def test_a_p_value_is_never_zero_and_none_for_no_difference() -> None:
    means = np.full(999, 0.5)
    assert bootstrap_p(means, 0.5) == 1 / 1000
    assert bootstrap_p(np.zeros(999), 0.0) == 1.0


def test_right_and_wrong_alone_are_mcnemars() -> None:
    base, other = [1.0] * 3 + [0.0] * 10 + [1.0] * 7, [0.0] * 3 + [1.0] * 10 + [1.0] * 7
    found = paired(base, other, range(20))
    assert (found.n, found.groups, found.better, found.worse, found.test) == (20, 20, 10, 3, MCNEMAR)
    assert (found.base, found.other, found.difference) == (0.5, 0.85, pytest.approx(0.35))
    assert found.p == found.mcnemar == mcnemar_exact(10, 3) and found.needed == questions_by_discordant(0.5, 0.15)
    assert 0 <= found.low < 0.35 < found.high <= 0.65
    assert found.visible == pytest.approx(2.8016 * math.sqrt((0.65 - 0.35**2) / 20), rel=0.05)


def test_questions_of_one_group_are_no_news_of_each_other() -> None:
    """Ten pictures with the same three gains and a loss: McNemar's test counts each of forty questions as news."""
    change = [1.0, 1.0, 0.0, 0.0] * 4 + [-1.0, -1.0, 0.0, 0.0] * 2
    base, other = [float(value < 0) for value in change], [float(value > 0) for value in change]
    found = paired(base, other, [place // 4 for place in range(24)])
    alone = paired(base, other, range(24))
    assert found.test == BOOTSTRAP and found.groups == 6 and alone.test == MCNEMAR
    assert found.mcnemar == alone.p and found.p > alone.p and found.high - found.low > alone.high - alone.low


def test_parts_of_points_are_the_bootstraps() -> None:
    found = paired([0.3] * 50, [0.3 + 0.01 * (place % 5) for place in range(50)], range(50))
    assert found.test == BOOTSTRAP and found.mcnemar is None and found.p < 0.001
    assert paired([0.5], [0.5], "a")[2:7] == (0.5, 0.5, 0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="as many of each"):
        paired([1.0], [1.0, 0.0], "ab")


def test_without_a_difference_one_in_twenty_is_found() -> None:
    generator, found = np.random.default_rng(0), 0
    for number in range(300):
        easy = np.repeat(generator.normal(size=30), 4)
        base, other = ((generator.normal(size=120) < easy).astype(float) for _ in range(2))
        groups = list(np.repeat(np.arange(30), 4))
        found += paired(list(base), list(other), groups, seed=number, resamples=500).p < 0.05
    assert 4 <= found <= 28  # 15 expected; the ends are 3.4 standard deviations away
