"""Batches by token count over a mixture's order: every record once an epoch, by whatever ranks, from wherever."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from vargpt_lightning.data.mixing.batching import split_rows
from vargpt_lightning.data.mixing.mixture import Place
from vargpt_lightning.data.mixing.token_sampler import RECORDS, TokenBatchSampler, TokenPlan, window_records
from vargpt_lightning.utils.errors import UserError

SIZES = {"questions": 300, "drawings": 100}
LENGTHS = {"questions": np.random.default_rng(0).integers(5, 90, 300), "drawings": np.full(100, 70)}
PLANS = {"grouped": TokenPlan(400), "packed": TokenPlan(400, 100)}
PER_EPOCH = 4


def draw(window: int) -> Sequence[Place]:
    """A quarter of a shuffled epoch."""
    epoch, quarter = divmod(window, PER_EPOCH)
    order = np.random.default_rng([7, epoch]).permutation(400)[quarter * 100 : (quarter + 1) * 100].tolist()
    return [Place("questions", n, epoch) if n < 300 else Place("drawings", n - 300, epoch) for n in order]


def sampler(plan: TokenPlan, steps: int, **more: int) -> TokenBatchSampler:
    return TokenBatchSampler(draw, LENGTHS, plan, steps=steps, **more)


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_an_epochs_batches_have_each_record_once(ranks: int, name: str) -> None:
    count = sampler(PLANS[name], 0).batches_of(PER_EPOCH)
    steps = -(-count // ranks)
    found = [list(sampler(PLANS[name], steps, rank=rank, world_size=ranks)) for rank in range(ranks)]
    assert all(len(batches) == steps for batches in found), "equally many for each rank"
    batches = [batch for step in zip(*found, strict=True) for batch in step]
    met = Counter(place for batch in batches[:count] for place in batch)
    assert len(met) == 400 and set(met.values()) == {1}
    assert {place.epoch for batch in batches[count:] for place in batch} <= {1}


@pytest.mark.parametrize("name", PLANS)
def test_batches_keep_their_bounds(name: str) -> None:
    for batch in sampler(PLANS[name], 30):
        lengths = [int(LENGTHS[place.source][place.position]) for place in batch]
        if name == "grouped":
            assert len(batch) * max(lengths) <= 400
        else:
            assert len(split_rows(lengths, 100)) <= 4


@pytest.mark.parametrize("name", PLANS)
def test_a_later_start_goes_on_exactly(name: str) -> None:
    whole = list(sampler(PLANS[name], 40, rank=1, world_size=2))
    for start in (1, 17, 39):
        assert list(sampler(PLANS[name], 40, rank=1, world_size=2, start_step=start)) == whole[start:]
    assert len(sampler(PLANS[name], 40, start_step=17)) == 23
    assert whole != list(sampler(PLANS[name], 40, rank=1, world_size=2, seed=1))


def test_draws_count_what_was_drawn() -> None:
    one = sampler(PLANS["packed"], 30, world_size=2)
    both = [batch for rank in (0, 1) for batch in sampler(PLANS["packed"], 30, world_size=2, rank=rank)]
    assert one.draws(30) == Counter(place.source for batch in both for place in batch)


@pytest.mark.parametrize("samples", [1, 300, RECORDS, RECORDS + 1, 2_500_000])
def test_an_epoch_has_whole_windows(samples: int) -> None:
    size = window_records(samples)
    windows = -(-samples // size)
    assert size <= RECORDS and 0 <= windows * size - samples < windows


def test_a_rank_outside_the_world_is_refused() -> None:
    with pytest.raises(UserError, match="rank 2 of 2"):
        sampler(PLANS["packed"], 1, rank=2, world_size=2)
