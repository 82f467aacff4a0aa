"""Infinity's table of schedules: fifteen aspect ratios with thirteen scales each (arXiv 2412.04431).

A smaller picture has the first scales of its ratio's schedule. Imports no torch.
"""

from __future__ import annotations

from vargpt_lightning.models.core.scales import ScaleSchedule
from vargpt_lightning.utils.errors import UserError

BUDGETS: dict[str, int] = {"0.06M": 7, "0.25M": 10, "0.60M": 12, "1M": 13}
"""Pixels of a picture, about, with the number of scales that it has."""

STRIDE = 16
"""Pixels by which a token of the table's maps is high and wide."""

Shape = tuple[int, int]
"""Height and width."""

_UPRIGHT: dict[float, str] = {
    1.25: "1x1 2x2 3x3 5x4 10x8 15x12 20x16 25x20 30x24 35x28 45x36 55x44 70x56",
    1.333: "1x1 2x2 4x3 8x6 12x9 16x12 20x15 24x18 28x21 36x27 48x36 60x45 72x54",
    1.5: "1x1 2x2 3x2 6x4 9x6 15x10 21x14 27x18 33x22 39x26 48x32 63x42 78x52",
    1.75: "1x1 2x2 3x3 7x4 11x6 14x8 21x12 28x16 35x20 42x24 56x32 70x40 84x48",
    2.0: "1x1 2x2 4x2 6x3 10x5 16x8 22x11 30x15 38x19 46x23 60x30 74x37 90x45",
    2.5: "1x1 2x2 5x2 10x4 15x6 20x8 25x10 30x12 40x16 50x20 65x26 80x32 100x40",
    3.0: "1x1 2x2 6x2 9x3 15x5 21x7 27x9 36x12 45x15 54x18 72x24 90x30 111x37",
}
_SQUARE = "1x1 2x2 4x4 6x6 8x8 12x12 16x16 20x20 24x24 32x32 40x40 48x48 64x64"


def _shapes(text: str) -> tuple[Shape, ...]:
    return tuple((int(height), int(width)) for height, width in (shape.split("x") for shape in text.split()))


def _lying(ratio: float) -> float:
    """The name of the ratio of a transposed picture, cut after three places as the published table does."""
    return int(1 / ratio * 1000) / 1000


def _table() -> dict[float, ScaleSchedule]:
    found = {1.0: ScaleSchedule(_shapes(_SQUARE))}
    for ratio, text in _UPRIGHT.items():
        shapes = _shapes(text)
        found[ratio] = ScaleSchedule(shapes)
        found[_lying(ratio)] = ScaleSchedule(tuple((width, height) for height, width in shapes))
    return found


RATIOS: dict[float, ScaleSchedule] = _table()
"""Schedules of all scales by the ratio of height to width; ratios below 1 are those above, transposed."""


def schedule_of(ratio: float, scales: int | str = "1M") -> ScaleSchedule:
    """Return the schedule of a ratio of the table.

    Args:
        scales: how many of its first scales, or the pixels of a picture as `BUDGETS` has them.

    Raises:
        UserError: there is no such ratio, budget, or number of scales.
    """
    if ratio not in RATIOS:
        raise UserError(f"ratio: got {ratio!r}, expected one of {', '.join(map(str, sorted(RATIOS)))}")
    most = BUDGETS["1M"]
    count = BUDGETS.get(scales) if isinstance(scales, str) else scales
    if count is None or not 1 <= count <= most:
        raise UserError(f"scales: got {scales!r}, expected 1 to {most}, or one of {', '.join(BUDGETS)}")
    return first_scales(RATIOS[ratio], count)


def first_scales(schedule: ScaleSchedule, count: int) -> ScaleSchedule:
    """Return the schedule of the first scales alone."""
    return ScaleSchedule(schedule.sizes[:count])


def ratio_beside(square: ScaleSchedule, ratio: float) -> ScaleSchedule:
    """Return the schedule of a ratio of the table with as many scales as one of its square's has.

    Raises:
        UserError: there is no such ratio, or the other scales are not those of the table's square.
    """
    if first_scales(RATIOS[1.0], square.num_scales) != square:
        told = ", ".join(map(str, RATIOS[1.0].sizes))
        raise UserError(f"got ratio {ratio} beside scales {list(square.sizes)}, expected first ones of {told}")
    return schedule_of(ratio, square.num_scales)


def nearest_ratio(height: float, width: float) -> float:
    """Return the ratio of the table that is nearest to a picture's height over its width."""
    return min(RATIOS, key=lambda ratio: abs(height / width - ratio))


def pixels(schedule: ScaleSchedule, stride: int = STRIDE) -> Shape:
    """Return height and width in pixels of a schedule's pictures."""
    height, width = schedule.shapes[-1]
    return height * stride, width * stride


def full_grid(schedule: ScaleSchedule) -> Shape:
    """Return the last shape of the table's schedule that a schedule begins; its own where it begins none.

    Two scales begin all schedules of the table, and three some; of several that one is taken whose ratio is nearest to
    the shape of the last scale given.
    """
    height, width = schedule.final_shape
    found = [ratio for ratio, whole in RATIOS.items() if whole.sizes[: schedule.num_scales] == schedule.sizes]
    if not found:
        return schedule.final_shape
    return RATIOS[min(found, key=lambda ratio: abs(height / width - ratio))].final_shape
