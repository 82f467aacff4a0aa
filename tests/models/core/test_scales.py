"""The scale schedule: counts, places, levels and the block-causal mask."""

from __future__ import annotations

import pytest
import torch

from vargpt_lightning.models.core.scales import ScaleSchedule

PAPER = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)


def test_counts_of_the_paper_schedule() -> None:
    schedule = ScaleSchedule(PAPER)
    assert (schedule.num_scales, schedule.num_tokens) == (10, 680)
    assert (schedule.first_tokens, schedule.final_shape) == (1, (16, 16))


def test_schedule_may_begin_with_more_than_one_token() -> None:
    schedule = ScaleSchedule((2, 3))
    assert (schedule.first_tokens, schedule.num_tokens) == (4, 13)


def test_slices_cover_all_tokens_in_order() -> None:
    assert ScaleSchedule((1, 2, 4)).slices == (slice(0, 1), slice(1, 5), slice(5, 21))


def test_level_ids_name_the_scale_of_each_token() -> None:
    schedule = ScaleSchedule(PAPER)
    level_L = schedule.level_ids()
    assert level_L.dtype == torch.int64 and level_L.shape == (680,)
    for k, tokens in enumerate(schedule.slices):
        assert (level_L[tokens] == k).all()


def test_mask_opens_own_and_earlier_scales_only() -> None:
    schedule = ScaleSchedule((1, 2, 3))
    mask_LL = schedule.block_causal_mask()
    expected = torch.zeros(14, 14, dtype=torch.bool)
    for tokens in schedule.slices:
        expected[tokens, : tokens.stop] = True
    assert mask_LL.dtype == torch.bool
    assert torch.equal(mask_LL, expected)


def test_equal_schedules_are_equal_and_hashable() -> None:
    assert len({ScaleSchedule((1, 2)), ScaleSchedule([1, 2]), ScaleSchedule((1, 3))}) == 2


def test_schedule_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        ScaleSchedule((1, 2)).sizes = (1, 3)


def test_maps_may_be_rectangles() -> None:
    schedule = ScaleSchedule((1, [2, 2], (3, 2), (6, 4)))
    assert schedule.sizes == (1, 2, (3, 2), (6, 4)) and schedule == ScaleSchedule(((1, 1), 2, (3, 2), (6, 4)))
    assert schedule.shapes == ((1, 1), (2, 2), (3, 2), (6, 4)) and schedule.final_shape == (6, 4)
    assert schedule.num_tokens == 35 and schedule.slices[2] == slice(5, 11)
    assert schedule.level_ids().bincount().tolist() == [1, 4, 6, 24]


BAD = [(), (0, 1), (-1, 2), (1, 1), (2, 1), (1, 2.5), (1, "2"), (True, 2)]
BAD_PAIRS = [((2, 3), (3, 2)), ((1, 2, 3),), ((1, 0),), ((2, 2), 2), ((2, True),)]


@pytest.mark.parametrize("sizes", [*BAD, *BAD_PAIRS])
def test_bad_sizes_are_refused_with_their_value(sizes: tuple) -> None:
    with pytest.raises(ValueError, match=r"^scales: got .*, expected strictly increasing positive integers") as error:
        ScaleSchedule(sizes)
    assert repr(sizes) in str(error.value)
