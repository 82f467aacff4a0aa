"""The tests of differences against SciPy's and statsmodels' (`pip install scipy statsmodels`), and what they promise.

python -m tests.benchmarks.bench_paired_tests
"""

from __future__ import annotations

import random

import numpy as np
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from vargpt_lightning.evaluation.base.paired_tests import holm, mcnemar_exact, paired, questions_by_discordant


def main() -> None:
    """Print the largest differences, and shares of simulated comparisons that are found."""
    chance, drawn = random.Random(0), np.random.default_rng(0)
    worst = 0.0
    for _ in range(3000):
        better, worse = chance.randrange(400), chance.randrange(1, 400)
        ours = mcnemar_exact(better, worse)
        binomial = stats.binomtest(min(better, worse), better + worse, 0.5).pvalue
        table = mcnemar([[0, better], [worse, 0]], exact=True).pvalue
        worst = max(worst, abs(ours / binomial - 1), abs(ours / table - 1))
    print(f"McNemar, exact, 3,000 tables: largest relative difference {worst:.0e}")
    worst = 0.0
    for _ in range(2000):
        values = [chance.random() ** 3 for _ in range(chance.randrange(1, 20))]
        worst = max(worst, float(np.abs(np.array(holm(values)) - multipletests(values, method="holm")[1]).max()))
    print(f"Holm, 2,000 lists: largest difference {worst:.0e}")
    for n in (50, 500, 5000):
        base = (drawn.random(n) < 0.5).astype(float)
        other = np.where(drawn.random(n) < 0.3, drawn.random(n) < 0.6, base).astype(float)
        theirs = stats.bootstrap((other - base,), np.mean, n_resamples=10_000, method="percentile", batch=500)
        ours = paired(list(base), list(other), range(n))
        ends = theirs.confidence_interval
        print(f"interval, n = {n}: {ours.low:.4f} to {ours.high:.4f}; SciPy {ends.low:.4f} to {ends.high:.4f}")
    found = sum(_without_difference(drawn) < 0.05 for _ in range(400))
    print(f"no difference, eight questions a picture: p < 0.05 in {found / 4:.1f} % of 400")
    needed = int(questions_by_discordant(0.2, 0.1))
    draws = (drawn.multinomial(needed, [0.2, 0.1, 0.7]) for _ in range(2000))
    power = sum(mcnemar_exact(int(better), int(worse)) < 0.05 for better, worse, _ in draws) / 20
    print(f"{needed} questions, which should show 20 % better and 10 % worse in 80 %: in {power:.1f} % of 2,000")


def _without_difference(drawn: np.random.Generator) -> float:
    """The p value of two systems that are as good as each other on 50 pictures, with pictures that suit either."""
    pictures = np.repeat(np.arange(50), 8)
    easy, suits = drawn.normal(size=50)[pictures], drawn.normal(size=50)[pictures]
    base, other = ((drawn.random(400) < 1 / (1 + np.exp(-2 * easy - sign * suits))).astype(float) for sign in (1, -1))
    return paired(list(base), list(other), list(pictures), resamples=2000).p


if __name__ == "__main__":
    main()
