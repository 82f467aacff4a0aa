from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from torch.utils.data import Dataset

from vargpt_lightning.data.mixture import Mixture, MixtureBatchSampler, Part, Place, SkippedRecord
from vargpt_lightning.errors import UserError

SIZES = {"a": 7, "b": 40, "c": 13}
WEIGHTS = {"a": 1.0, "b": 2.0, "c": 5.0}


def sampler(**values: Any) -> MixtureBatchSampler:
    return MixtureBatchSampler(**({"sizes": SIZES, "weights": WEIGHTS, "batch_size": 8, "steps": 50} | values))


def test_resuming_at_any_step_is_exact() -> None:
    whole = list(sampler())
    assert len(whole) == 50 == len(sampler())
    for start in (0, 1, 17, 49, 50):
        assert list(sampler(start_step=start)) == whole[start:]


def test_far_steps_need_no_walk_there() -> None:
    far = sampler(steps=10**9 + 1, start_step=10**9)
    assert list(far) == [sampler().batch(10**9)]


def test_another_seed_is_another_order() -> None:
    assert list(sampler(seed=1)) != list(sampler(seed=2))


def test_every_epoch_shows_every_record_once() -> None:
    places = [place for batch in sampler(steps=400) for place in batch]
    for name, size in SIZES.items():
        drawn = [place for place in places if place.source == name]
        for epoch in range(len(drawn) // size):
            part = drawn[epoch * size : (epoch + 1) * size]
            assert {place.epoch for place in part} == {epoch}
            assert sorted(place.position for place in part) == list(range(size))
        assert [place.position for place in drawn[:size]] != [place.position for place in drawn[size : 2 * size]]


def test_weights_are_shares_of_samples() -> None:
    counts = Counter(place.source for batch in sampler(steps=125) for place in batch)
    assert counts == {"a": 125, "b": 250, "c": 625}


def test_every_batch_is_mixed_about_so() -> None:
    for batch in sampler(batch_size=16):
        counts = Counter(place.source for place in batch)
        assert 8 <= counts["c"] <= 12 and 2 <= counts["b"] <= 6


def test_ranks_are_disjoint_and_together_the_global_batch() -> None:
    alone = list(sampler(batch_size=8, seed=3))
    ranks = [list(sampler(batch_size=4, seed=3, rank=rank, world_size=2)) for rank in (0, 1)]
    for step, batch in enumerate(alone):
        assert ranks[0][step] + ranks[1][step] == batch


def test_groups_make_batches_of_one_sort() -> None:
    groups = {"a": "text", "b": "text", "c": "drawing"}
    batches = list(sampler(steps=1000, groups=groups))
    sorts = [{groups[place.source] for place in batch} for batch in batches]
    assert all(len(sort) == 1 for sort in sorts)
    assert sum(sort == {"drawing"} for sort in sorts) == 625
    counts = Counter(place.source for batch in batches for place in batch)
    assert counts["b"] / counts["a"] == pytest.approx(2, rel=0.02)
    assert list(sampler(steps=1000, groups=groups, start_step=501)) == batches[501:]


def test_groups_keep_ranks_disjoint_and_epochs_whole() -> None:
    groups = {"a": "text", "b": "text", "c": "drawing"}
    ranks = [list(sampler(steps=60, groups=groups, rank=rank, world_size=2)) for rank in (0, 1)]
    places = [place for pair in zip(*ranks, strict=True) for batch in pair for place in batch]
    assert len(set(places)) == len(places)


def test_a_weight_of_zero_is_never_drawn_and_a_tiny_one_is() -> None:
    weights = {"a": 0.0, "b": 1e-6, "c": 1.0}
    counts = Counter(place.source for batch in sampler(weights=weights, steps=500) for place in batch)
    assert counts["a"] == 0 and counts["b"] == 4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weights": {"d": 1.0}}, "'d' is not one of a, b, c"),
        ({"weights": {"a": -1.0}}, "weight -1.0 of 'a'"),
        ({"weights": {"a": float("nan")}}, "weight nan of 'a'"),
        ({"weights": {"a": 0.0}}, "no positive weight"),
        ({"weights": {}}, "no positive weight"),
        ({"sizes": {"a": 0}, "weights": {"a": 1.0}}, "'a' has no records"),
        ({"rank": 2, "world_size": 2}, "rank 2 of 2"),
        ({"batch_size": 0}, "batch_size 0"),
    ],
)
def test_bad_mixtures(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        sampler(**values)


class Numbers(Dataset[int]):
    def __init__(self, values: Sequence[int]) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> int:
        return self.values[index]


class Made:
    def __init__(self, value: int, place: Place) -> None:
        if value < 0:
            raise SkippedRecord("bad")
        self.value, self.place, self.skipped = value, place, 0


def test_a_bad_record_is_replaced_by_the_next_good_one_and_counted() -> None:
    mixture = Mixture({"n": Numbers([5, -1, -1, 8])}, Made)
    assert mixture.sizes == {"n": 4}
    example = mixture[Place("n", 1, 2)]
    assert (example.value, example.skipped, example.place) == (8, 2, Place("n", 3, 2))
    assert mixture[Place("n", 0, 0)].skipped == 0
    assert Mixture({"n": Numbers([5, -1])}, Made)[Place("n", 1, 0)].value == 5


def test_a_source_of_bad_records_alone() -> None:
    with pytest.raises(UserError, match="'n': none of its 2 records can be used"):
        Mixture({"n": Numbers([-1, -1])}, Made)[Place("n", 0, 0)]


def test_a_part_is_chosen_by_the_seed_and_the_smaller_lies_in_the_larger() -> None:
    numbers = Numbers(list(range(100)))
    small, large = Part(numbers, 10, 3), Part(numbers, 40, 3)
    members = [small[place] for place in range(len(small))]
    assert len(members) == len(set(members)) == 10 and members == sorted(members)
    assert set(members) < {large[place] for place in range(40)}
    assert members != [Part(numbers, 10, 4)[place] for place in range(10)]
    assert members != list(range(10)), "the first records of a corpus are alike"
    assert len(Part(numbers, 500, 3)) == 100
