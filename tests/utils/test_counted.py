from __future__ import annotations

import pytest

from vargpt_lightning.utils.counted import counted, times


@pytest.mark.parametrize(
    ("number", "thing", "said"),
    [
        (1, "shard", "1 shard"),
        (0, "shard", "0 shards"),
        (1234, "record", "1,234 records"),
        (2, "entry", "2 entries"),
        (2, "key", "2 keys"),
        (2, "pass", "2 passes"),
        (1, "drawn picture", "1 drawn picture"),
    ],
)
def test_one_is_in_the_singular(number: int, thing: str, said: str) -> None:
    assert counted(number, thing) == said


def test_other_plurals_may_be_named_and_times_counted() -> None:
    assert counted(2, "child", "children") == "2 children"
    assert [times(number) for number in (1, 0.5, 2.0)] == ["1 time", "0.5 times", "2 times"]
