"""The radar chart: the axes and polygons that belong there, ranges that hold the values, a readable picture."""

from __future__ import annotations

import pytest
from PIL import Image

from tests.evaluation.results_made import write_result
from vargpt_lightning.evaluation.reports.benchmark_measured import read_measured
from vargpt_lightning.evaluation.reports.radar import AXES, axis_range, draw_radar, polygons


def write_all(out, protocol="lmms_eval", names=AXES):
    for name in names:
        write_result(out, name, 1400.0 if name == "mme" else 0.6, protocol)


def test_all_eleven_are_axes():
    assert len(AXES) == len(set(AXES)) == 11


def test_measured_and_published_polygons_of_one_protocol(tmp_path):
    write_all(tmp_path)
    write_all(tmp_path, "official", ("gqa", "mme", "scienceqa_img", "vqav2"))
    shown = polygons(read_measured([tmp_path]), "lmms_eval")
    assert [(p.label, p.measured) for p in shown] == [
        ("mine", True), ("LLaVA-1.5-7B (hf)", False), ("VARGPT", False), ("VARGPT-v1.1", False),
    ]  # fmt: skip
    assert shown[0].values["mme"] == 1400 and shown[0].values["gqa"] == pytest.approx(60)
    assert shown[2].values["pope"] == pytest.approx((84.40 + 85.90 + 87.37) / 3) and len(shown[2].values) == 11
    official = polygons(read_measured([tmp_path]), "official")
    assert [p.label for p in official] == ["mine", "LLaVA-1.5-7B", "LLaVA-1.5-13B"]


def test_results_of_a_part_of_the_questions_are_told(tmp_path):
    write_result(tmp_path, "gqa", 0.6, limit=50)
    write_result(tmp_path, "vqav2", 0.6)
    assert polygons(read_measured([tmp_path]), "lmms_eval")[0].in_part == {"gqa"}


@pytest.mark.parametrize(
    "key, values", [("gqa", [59.3, 66.2]), ("mme", [170.0, 1684.1]), ("pope", [99.0]), ("mmmu", [0.0, 3.0])]
)
def test_a_range_holds_its_values_off_the_centre(key, values):
    low, high = axis_range(key, values)
    assert 0 <= low <= min(values) and max(values) <= high and low < high
    assert low < min(values) or low == 0
    assert key == "mme" or high <= 100


def test_the_chart_is_a_picture_with_every_colour(tmp_path):
    write_all(tmp_path)
    assert draw_radar(tmp_path / "radar.png", read_measured([tmp_path]), "lmms_eval")
    with Image.open(tmp_path / "radar.png") as picture:
        assert picture.width > 1000 and picture.height > 1000
        colours = {colour for _, colour in picture.convert("RGB").crop((300, 300, 950, 950)).getcolors(1 << 24)}
        # nothing is cut off: the border is empty
        edge = [
            picture.convert("L").crop(box).getextrema() for box in ((0, 0, picture.width, 4), (0, 0, 4, picture.height))
        ]
    assert {(0x1F, 0x6F, 0x4C), (0xB5, 0x9A, 0x3C)} <= colours and edge == [(255, 255)] * 2


def test_too_few_benchmarks_make_no_chart(tmp_path):
    write_all(tmp_path, names=AXES[:2])
    assert not draw_radar(tmp_path / "radar.png", read_measured([tmp_path]), "lmms_eval")
    assert not (tmp_path / "radar.png").exists()


def test_missing_values_leave_the_others(tmp_path):
    write_all(tmp_path / "a")
    write_all(tmp_path / "b", names=AXES[:5])
    assert draw_radar(tmp_path / "radar.png", read_measured([tmp_path / "a", tmp_path / "b"]), "lmms_eval")
