"""Two-dimensional rotary positions: bit for bit those of the authors' table."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch

from tests.golden import load_golden
from vargpt_lightning.models.bitwise.rotary import positions, rotary_table, rotate
from vargpt_lightning.models.core.aspect_ratios import RATIOS, full_grid, schedule_of
from vargpt_lightning.models.core.scales import ScaleSchedule


@pytest.mark.parametrize("ratio", RATIOS)
def test_positions_of_all_scales_are_the_published_ones(ratio: float) -> None:
    whole = RATIOS[ratio]
    found = [positions(shape, whole.final_shape) for shape in whole.shapes]
    text = json.dumps([[pair[axis].tolist() for pair in found] for axis in (0, 1)], separators=(",", ":"))
    expected = load_golden("b3_rope").meta["ratios"][str(ratio)]["positions_sha256"]
    assert hashlib.sha256(text.encode()).hexdigest() == expected


def test_halves_go_to_the_even_neighbour() -> None:
    """As 45 rows for 2: row 1 lies at 22.5."""
    for ratio, (rows, columns) in load_golden("b3_rope").meta["positions_of_scale_4"].items():
        whole = RATIOS[float(ratio)]
        found = positions(whole.shapes[4], whole.final_shape)
        assert [each.tolist() for each in found] == [rows, columns]
    assert positions((2, 4), (45, 90))[0].tolist() == [0, 22]


def test_table_and_rotation_are_the_published_ones() -> None:
    gold = load_golden("b3_rope")
    schedule = schedule_of(1.5, 5)
    table_2LP = rotary_table(schedule, full_grid(schedule), 32)
    assert torch.equal(table_2LP, gold.tensors["table_r15_head32_first89"])
    assert torch.equal(rotate(gold.tensors["q"].float(), table_2LP), gold.tensors["q_rot"])


def test_a_prefix_has_the_first_rows_of_the_table() -> None:
    grid = RATIOS[1.0].final_shape
    whole = rotary_table(schedule_of(1.0, 8), grid, 16)
    assert torch.equal(rotary_table(schedule_of(1.0, 5), grid, 16), whole[:, : schedule_of(1.0, 5).num_tokens])


def test_plain_positions_do_not_know_the_grid() -> None:
    schedule = ScaleSchedule((1, (2, 3)))
    tables = [rotary_table(schedule, grid, 8, "plain") for grid in ((2, 3), (64, 64))]
    assert torch.equal(*tables)
    last_P = torch.tensor([1.0, 0.01, 2.0, 0.02])  # row 1, column 2; rates 1 and 1/100
    torch.testing.assert_close(tables[0][:, -1], torch.stack((last_P.cos(), last_P.sin())))


def test_scores_depend_on_the_distance_alone() -> None:
    """Queries and keys turned by their rows and columns: moving both keeps the score."""
    table_2LP = rotary_table(ScaleSchedule((8,)), (8, 8), 16).unflatten(1, (8, 8))
    q, k = torch.randn(2, 1, 1, 1, 16, generator=torch.Generator().manual_seed(0))

    def score(one: tuple[int, int], two: tuple[int, int]) -> float:
        return float((rotate(q, table_2LP[:, *one][:, None]) * rotate(k, table_2LP[:, *two][:, None])).sum())

    assert score((1, 2), (3, 5)) == pytest.approx(score((4, 0), (6, 3)), abs=1e-5)
    assert abs(score((1, 2), (3, 5)) - score((1, 2), (5, 3))) > 1e-2
