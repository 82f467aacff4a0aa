"""Batches by token count: every record once, bounds kept, the same again, and still at random."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from vargpt_lightning.data.mixing.batching import packed_batches, split_rows, token_batches
from vargpt_lightning.utils.errors import UserError

Plan = Callable[..., list[Any]]


def mixed_lengths(count: int = 3000, seed: int = 0) -> np.ndarray:
    """Questions, drawings and text alone: what a stage's mixture is made of."""
    rng = np.random.default_rng(seed)
    text = rng.lognormal(3, 0.8, count).astype(int) + 5
    kind = rng.random(count)
    return np.minimum(np.where(kind < 0.4, 60 + text, np.where(kind < 0.8, 100 + text // 4, text)), 400)


PLANS: dict[str, Plan] = {
    "grouped": lambda lengths, **more: token_batches(lengths, 1600, **more),
    "packed": lambda lengths, **more: packed_batches(lengths, 1600, 400, **more),
}


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("name", PLANS)
def test_every_record_comes_once(name: str, shuffle: bool) -> None:
    lengths = mixed_lengths()
    batches = PLANS[name](lengths, seed=3, window=700, shuffle=shuffle)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert all(len(batch) for batch in batches)


@pytest.mark.parametrize("name", PLANS)
def test_the_seed_alone_decides(name: str) -> None:
    lengths = mixed_lengths(500)
    one, two, other = ([b.tolist() for b in PLANS[name](lengths, seed=seed, window=100)] for seed in (5, 5, [5, 1]))
    assert one == two != other
    assert {tuple(sorted(batch)) for batch in one} != {tuple(sorted(batch)) for batch in other}


def test_a_batch_with_its_padding_holds_no_more_tokens_than_allowed() -> None:
    lengths = mixed_lengths()
    for batch in token_batches(lengths, 1600, pad_to=8, max_rows=20):
        assert len(batch) <= 20
        assert len(batch) * -(-lengths[batch].max() // 8) * 8 <= 1600


def test_packed_batches_keep_their_bounds() -> None:
    lengths = mixed_lengths()
    for batch in packed_batches(lengths, 1600, 400):
        assert len(split_rows(lengths[batch].tolist(), 400)) <= 4


def test_records_that_came_out_shorter_need_no_more_rows() -> None:
    lengths, rng = mixed_lengths(), np.random.default_rng(1)
    for batch in packed_batches(lengths, 1600, 400)[:50]:
        assert len(split_rows((lengths[batch] - rng.integers(0, 5, len(batch))).tolist(), 400)) <= 4


def test_little_is_padding() -> None:
    lengths = mixed_lengths()
    plain = np.array_split(np.random.default_rng(0).permutation(len(lengths)), 200)

    def padding(batches: list[Any], row_tokens: int = 1) -> float:
        """The share of all positions; with one token a row, each record has a row of its own."""
        positions = 0
        for batch in batches:
            rows = [int(lengths[batch][row].sum()) for row in split_rows(lengths[batch].tolist(), row_tokens)]
            positions += len(rows) * max(rows)
        return 1 - lengths.sum() / positions

    assert padding(plain) > 0.3
    assert padding(token_batches(lengths, 1600)) < 0.1
    assert padding(packed_batches(lengths, 1600, 400), 400) < 0.05


@pytest.mark.parametrize("name", ["grouped", "packed"])
@pytest.mark.parametrize("multiple", [2, 7, 64])
def test_ranks_get_equally_many_batches_and_nothing_is_lost(name: str, multiple: int) -> None:
    lengths = mixed_lengths(700)
    batches = PLANS[name](lengths, multiple=multiple)
    assert len(batches) % multiple == 0
    assert len(batches) < len(PLANS[name](lengths)) + multiple, "no more batches than are needed"
    assert sorted(np.concatenate(batches).tolist()) == list(range(700))
    if name == "packed":
        assert all(len(split_rows(lengths[batch].tolist(), 400)) <= 4 for batch in batches)


def test_as_many_ranks_as_records() -> None:
    assert sorted(map(len, token_batches([3, 3, 3, 3], 100, multiple=4))) == [1, 1, 1, 1]


def test_long_and_short_records_meet_only_within_a_window() -> None:
    """Sorting all records would make every epoch's batches the same; windows are drawn anew."""
    lengths = np.arange(1, 401)
    spread = [lengths[batch].max() - lengths[batch].min() for batch in token_batches(lengths, 4000, window=40)]
    whole = [lengths[batch].max() - lengths[batch].min() for batch in token_batches(lengths, 4000, window=400)]
    assert np.mean(spread) > 3 * np.mean(whole)


def test_batches_are_not_in_the_order_of_length() -> None:
    lengths = mixed_lengths()
    for batches in (token_batches(lengths, 1600), packed_batches(lengths, 1600, 400)):
        longest = [lengths[batch].max() for batch in batches]
        assert abs(np.corrcoef(np.arange(len(longest)), longest)[0, 1]) < 0.2


@pytest.mark.parametrize("name", ["grouped", "packed"])
def test_a_given_order_is_kept_up_to_the_window(name: str) -> None:
    lengths = mixed_lengths()
    batches = PLANS[name](lengths, window=200, shuffle=False)
    at = 0
    for batch in batches:
        assert abs(np.median(batch) - at) < 600
        at += len(batch)
    assert any(one.min() > two.min() for one, two in pairwise(batches)), "shuffled inside the window"


def test_first_fit_decreasing_is_what_it_says() -> None:
    lengths = mixed_lengths(300, seed=4)
    rows: list[list[int]] = []
    for length in sorted(lengths.tolist(), reverse=True):
        row = next((row for row in rows if sum(row) + length <= 400), None)
        rows.append([length]) if row is None else row.append(length)
    (batch,) = packed_batches(lengths, 400 * len(rows), 400, window=300)
    found = [batch[row] for row in split_rows(lengths[batch].tolist(), 400)]
    assert sorted(sorted(lengths[row].tolist()) for row in found) == sorted(sorted(row) for row in rows)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: token_batches([5, 101], 100), r"record 1 has 101 tokens; expected 1 to 100"),
        (lambda: token_batches([5, 0], 100), r"record 1 has 0 tokens"),
        (lambda: token_batches([97], 99, pad_to=8), r"max_tokens=99; expected at least 104"),
        (lambda: packed_batches([5], 99, 100), r"max_tokens=99; expected at least 100"),
        (lambda: token_batches([5, 5], 100, multiple=3), r"2 records; expected at least 3"),
        (lambda: token_batches([], 100), r"0 records"),
    ],
)
def test_what_cannot_be_batched_is_refused(call: Callable[[], Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        call()
