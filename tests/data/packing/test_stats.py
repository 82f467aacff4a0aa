"""What a packed folder is made of."""

from __future__ import annotations

from pathlib import Path

from tests.evaluation.data_reports.test_stats_page import packed
from vargpt_lightning.data.packing.stats import describe_folder, evenly

__all__ = ["packed"]  # a fixture


def test_what_a_folder_is_made_of(packed: Path) -> None:
    found = describe_folder(packed)
    assert (found.count, found.looked_at, found.split) == (12, 12, "train")
    test, words = found.sources
    assert (test.name, test.count, dict(test.tasks)) == ("test", 8, {"understanding": 6, "generation": 2})
    assert (words.count, words.lengths, words.quantile(0.5)) == (4, {"text": [10, 20, 30, 40]}, 30)
    assert test.mean(test.seen) == 6 / 8 and test.mean(test.turns) == 2
    assert set(test.sizes) == {(20 + number, 20 + number) for number in range(6)} | {(16, 16)}


def test_a_sample_is_spread_over_the_folder(packed: Path) -> None:
    assert evenly(100, 4) == [0, 25, 50, 75] and evenly(3, 10) == [0, 1, 2] and evenly(0, 5) == []
    found = describe_folder(packed, limit=4)
    assert found.looked_at == 4 and sum(len(source.turns) for source in found.sources) == 4
