"""Charts: which metrics are drawn where, and SVG that fits into any page beside others."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest

from vargpt_lightning.evaluation.reports.curves import CSS, confusion_svg, curves_svg, panels, smoothed
from vargpt_lightning.runs.folder import MetricRow

NAMES = (
    "train/text_loss", "val/text_loss", "train/l1", "train/text_accuracy", "train/image_loss_scale_1",
    "train/image_loss_scale_2", "val/image_loss_scale_1", "throughput/samples_per_s", "throughput/data_wait",
    "lr-AdamW", "train/seconds", "grad_norm",
)  # fmt: skip


@pytest.fixture
def rows():
    return [MetricRow(step, name, 2.0 / (step + 1) + n) for step in range(100) for n, name in enumerate(NAMES)]


def test_metrics_are_sorted_into_charts(rows):
    found = panels([*rows, MetricRow(1, "train/once_loss", 1.0), MetricRow(3, "train/l1", math.nan)])
    assert {panel: list(series) for panel, series in found.items()} == {
        "loss": ["train/text_loss", "val/text_loss", "train/l1"],
        "share": ["train/text_accuracy"],
        "image loss of each scale": ["train/image_loss_scale_1", "train/image_loss_scale_2"],
    }
    assert next(iter(found)) == "loss"
    steps, values = found["loss"]["train/l1"]
    assert steps == list(range(100)) and not any(math.isnan(value) for value in values)


def test_charts_take_the_pages_colours_and_load_nothing(rows):
    found = panels(rows)
    charts = [curves_svg(title, series, f"c{n}") for n, (title, series) in enumerate(found.items())]
    for chart in charts:
        ElementTree.fromstring(chart)
        assert "http" not in chart and "<style" not in chart and "<!" not in chart
        assert not any(colour in chart for colour in CSS) and "var(--s1)" in chart + charts[0]
    ids = [name for chart in charts for name in re.findall(r'\bid="([^"]+)"', chart)]
    assert len(ids) == len(set(ids))
    for chart in charts:
        used = set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', chart))
        assert {one or other for one, other in used} <= set(ids)


def test_text_stays_text_and_heldout_values_share_the_colour(rows):
    chart = curves_svg("loss", panels(rows)["loss"], "x")
    words = "".join(ElementTree.fromstring(chart).itertext())
    assert "text loss" in words and "held-out dashed" in words and "val" not in words
    assert "stroke-dasharray" in chart and "var(--s2)" in chart and "var(--s3)" not in chart


def test_short_curves_are_not_smoothed_and_long_ones_keep_their_level():
    assert smoothed([1.0, 5.0]) == [1.0, 5.0]
    wave = [10 + (-1) ** n for n in range(400)]
    assert max(smoothed(wave)) - min(smoothed(wave)) < 0.7 and sum(smoothed(wave)) / 400 == pytest.approx(10, abs=0.01)


def test_values_of_many_sizes_get_a_logarithmic_axis():
    steps = list(range(50))
    wide = curves_svg("loss", {"train/loss": (steps, [10 ** (-n / 10) for n in steps])}, "x")
    narrow = curves_svg("loss", {"train/loss": (steps, [1 + n / 50 for n in steps])}, "x")
    assert "10" in wide and wide.count("tick_") > narrow.count("tick_")


def test_the_confusion_names_labels_and_counts():
    table = {
        "labels": ["bird", "bug"],
        "columns": ["bird", "bug", "(another answer)"],
        "counts": [[7, 2, 0], [0, 31, 0]],
    }
    words = "".join(ElementTree.fromstring(confusion_svg(table, "x")).itertext()).split()
    assert words.count("bird") == 2 and {"7", "2", "31"} <= set(words) and "0" not in words
    assert "another" not in " ".join(words)
    table["counts"][0][2] = 5
    assert "another" in confusion_svg(table, "x")
