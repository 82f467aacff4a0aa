from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from torch.utils.data import Dataset

from vargpt_lightning.data.mixing.mixture import Mixture, MixtureBatchSampler, Part, Place, SkippedRecord
from vargpt_lightning.data.mixing.spec import MixtureSpec
from vargpt_lightning.utils.errors import UserError

SIZES = {"a": 7, "b": 40, "c": 13}
WEIGHTS = {"a": 1.0, "b": 2.0, "c": 5.0}


OF_SAMPLER = ("steps", "start_step", "seed", "rank", "shards", "window")


def spec(**values: Any) -> MixtureSpec:
    return MixtureSpec(**({"sizes": SIZES, "values": WEIGHTS, "batch_size": 8} | values))


def sampler(**values: Any) -> MixtureBatchSampler:
    """A sampler of 50 steps with changes to itself and to its mixture."""
    own = {name: values.pop(name) for name in OF_SAMPLER if name in values}
    return MixtureBatchSampler(spec(**values), **{"steps": 50} | own)


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
    counts = Counter(place.source for batch in sampler(values=weights, steps=500) for place in batch)
    assert counts["a"] == 0 and counts["b"] == 4


COUNTED: dict[str, Any] = {"values": {"a": 21, "b": 10, "c": 6}, "by": "counts"}


def test_counts_are_samples_an_epoch() -> None:
    places = [place for batch in sampler(**COUNTED, batch_size=37, steps=4) for place in batch]
    for epoch in range(4):
        counts = Counter(place.source for place in places[epoch * 37 : (epoch + 1) * 37])
        assert counts == {"a": 21, "b": 10, "c": 6}
    assert len({place for place in places if place.source == "b"}) == 40, "each epoch takes others, till all were had"
    assert {place.epoch for place in places if place.source == "a"} == set(range(12))


@pytest.mark.parametrize("world_size", [1, 3])
@pytest.mark.parametrize("groups", [None, {"a": "text", "b": "text", "c": "drawing"}])
@pytest.mark.parametrize("epochs", [1, 2.5])
def test_a_stage_of_epochs_draws_all_of_them_and_fills_its_last_batches(
    epochs: float, groups: dict[str, str] | None, world_size: int
) -> None:
    more = {"groups": groups, "world_size": world_size, "batch_sizes": {"text": 5}}
    steps = spec(**COUNTED, **more).batches(epochs)
    drawn = sampler(**COUNTED, **more, steps=steps).draws(steps)
    parts = [["a", "b"], ["c"]] if groups else [["a", "b", "c"]]
    for names in parts:
        wanted = epochs * sum(COUNTED["values"][name] for name in names)
        size = 5 if names == ["a", "b"] else 8
        assert 0 <= sum(drawn[name] for name in names) - wanted < size * world_size


def test_passes_are_counts_in_sizes_of_the_source() -> None:
    assert spec(values={"a": 2, "b": 0.5, "c": 0.001}, by="passes").epoch == {"a": 14, "b": 20, "c": 1}


def test_what_was_drawn_before_a_step_is_known() -> None:
    for values in (COUNTED, {}):
        for groups in (None, {"a": "text", "b": "text", "c": "drawing"}):
            ranks = [sampler(**values, groups=groups, rank=rank, world_size=2) for rank in (0, 1)]
            counts = Counter(place.source for each in ranks for step in range(17) for place in each.batch(step))
            assert ranks[0].draws(17) == counts


def test_sources_in_shards_are_shuffled_by_blocks() -> None:
    shards = [10, 20, 5, 5]
    plain, blocks = (sampler(shards=each, window=1, batch_size=1, steps=200) for each in ({}, {"b": shards}))
    shard_of = [number for number, count in enumerate(shards) for _ in range(count)]
    found = [shard_of[place.position] for batch in blocks for place in batch if place.source == "b"]
    changes = sum(one != two for one, two in pairwise(found))
    assert len(found) == 50 and changes <= 4
    others = [[place for batch in each for place in batch if place.source != "b"] for each in (plain, blocks)]
    assert others[0] == others[1]


def test_millions_of_records_are_planned_in_seconds() -> None:
    """And in no more than some tens of bytes a record."""
    import time
    import tracemalloc

    sizes = {"a": 665_000, "b": 1_800_000, "c": 5_000}
    began = time.process_time()
    tracemalloc.start()
    stream = sampler(sizes=sizes, values=sizes, by="counts", steps=300_000, shards={"b": [3000] * 600})
    stream.batch(299_999)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.process_time() - began < 5
    assert peak < 100 * sum(sizes.values())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"values": {"d": 1.0}}, "'d' is not one of a, b, c"),
        ({"values": {"a": -1.0}}, "weight -1.0 of 'a'"),
        ({"values": {"a": float("nan")}}, "weight nan of 'a'"),
        ({"values": {"a": 0.0}}, "no positive weight"),
        ({"values": {}}, "no positive weight"),
        ({"sizes": {"a": 0}, "values": {"a": 1.0}}, "'a' has no records"),
        ({"values": {"a": 1.5}, "by": "counts"}, "count 1.5 of 'a'; expected a whole number"),
        ({"values": {"a": -1}, "by": "passes"}, "number of passes -1 of 'a'"),
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
    with pytest.raises(UserError, match="'n': none of its 2 records can be used; the first: bad"):
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
