"""The table of aspect ratios, against the authors'."""

from __future__ import annotations

import pytest

from tests.golden import load_golden
from vargpt_lightning.models.core.aspect_ratios import (
    RATIOS,
    first_scales,
    full_grid,
    nearest_ratio,
    pixels,
    schedule_of,
)
from vargpt_lightning.models.core.scales import ScaleSchedule
from vargpt_lightning.utils.errors import UserError


def test_table_is_the_published_one() -> None:
    golden = load_golden("b3_rope").meta["ratios"]
    assert set(RATIOS) == {float(ratio) for ratio in golden} and len(RATIOS) == 15
    for ratio, expected in golden.items():
        whole = RATIOS[float(ratio)]
        assert " ".join(f"{height}x{width}" for height, width in whole.shapes) == expected["scales"]
        for budget, tokens in expected["tokens"].items():
            schedule = schedule_of(float(ratio), budget)
            assert schedule.num_scales == expected["n_scales"][budget]
            assert schedule.num_tokens == tokens
            assert list(pixels(schedule)) == expected["pixels"][budget]


@pytest.mark.parametrize("ratio", RATIOS)
def test_fewer_scales_are_the_first_ones_on_the_same_grid(ratio: float) -> None:
    whole = RATIOS[ratio]
    for count in range(4, 14):
        schedule = schedule_of(ratio, count)
        assert schedule.shapes == whole.shapes[:count]
        assert full_grid(schedule) == whole.final_shape
    assert whole.final_shape[0] / whole.final_shape[1] == pytest.approx(ratio, abs=0.01)


def test_schedules_that_begin_several_of_the_table_or_none() -> None:
    assert full_grid(ScaleSchedule((1, 2))) == (64, 64)
    assert full_grid(ScaleSchedule((1, 2, 3))) == RATIOS[0.8].final_shape
    assert full_grid(ScaleSchedule((1, 2, 3, 4, 6))) == (6, 6)
    assert full_grid(first_scales(RATIOS[3.0], 13)) == (111, 37)


@pytest.mark.parametrize(("size", "ratio"), [((1024, 1024), 1.0), ((1080, 1920), 0.571), ((400, 100), 3.0)])
def test_pictures_go_to_the_nearest_ratio(size: tuple[int, int], ratio: float) -> None:
    assert nearest_ratio(*size) == ratio


def test_what_the_table_does_not_have_is_refused() -> None:
    with pytest.raises(UserError, match=r"^ratio: got 1\.6, expected one of 0\.333, 0\.4, .*3\.0$"):
        schedule_of(1.6)
    for scales in (0, 14, "2M"):
        with pytest.raises(UserError, match=rf"^scales: got {scales!r}, expected 1 to 13, or one of 0\.06M, "):
            schedule_of(1.0, scales)
