"""Figures of a run show what was logged, and say so where nothing was."""

from __future__ import annotations

import pandas as pd
import pytest
from matplotlib.figure import Figure

from vargpt_lightning.evaluation.analysis.run_plots import codebook_figure, stage_figure, throughput_figure
from vargpt_lightning.utils.errors import UserError

NAMES = {
    "train/image_loss": 2.0,
    "val/image_loss": 3.0,
    "train/image_loss_scale_1": 1.0,
    "train/image_loss_scale_2": 2.0,
    "train/image_accuracy": 0.5,
    "throughput/samples_per_s": 9.0,
    "throughput/data_wait": 0.1,
}


@pytest.fixture
def metrics() -> pd.DataFrame:
    rows = [
        (".", stage, step, name, value / step) for stage in "ab" for step in (1, 2, 3) for name, value in NAMES.items()
    ]
    rows += [
        (".", "a", step, f"train/codebook_usage_scale_{k}", 10.0 * k + step) for k in (1, 2, 10) for step in (2, 1)
    ]
    return pd.DataFrame(rows, columns=["run", "stage", "step", "name", "value"]).astype({"name": "category"})


def said(figure: Figure) -> str:
    """The words of a figure that has nothing to show."""
    (axes,) = figure.axes
    return axes.texts[0].get_text()


def test_a_stage_has_a_panel_for_each_kind_of_curve(metrics: pd.DataFrame) -> None:
    figure = stage_figure(metrics, "b")
    titles = [axes.get_title(loc="left").split(",")[0] for axes in figure.axes]
    assert titles == ["loss", "share", "image loss of each scale"]
    assert [list(line.get_ydata()) for line in figure.axes[0].lines] == [[2.0, 1.0, 2 / 3], [3.0, 1.5, 1.0]]
    with pytest.raises(UserError, match="stages that did: a, b"):
        stage_figure(metrics, "c")
    assert "yet" in said(stage_figure(metrics[metrics["step"] == 1], "b"))


def test_throughput_goes_on_from_stage_to_stage(metrics: pd.DataFrame) -> None:
    figure = throughput_figure(metrics)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "samples a second",
        "share of time that waits for data",
    ]
    assert [list(line.get_xdata()) for line in figure.axes[0].lines[1::2]] == [[1, 2, 3], [4, 5, 6]]
    assert "no throughput" in said(throughput_figure(metrics[metrics["name"] == "val/image_loss"]))


def test_the_codebooks_use_is_shown_by_scale_as_it_ended(metrics: pd.DataFrame) -> None:
    over, end = codebook_figure(metrics).axes
    assert [bar.get_height() for bar in end.patches] == [12.0, 22.0, 102.0], "scale 10 comes after scale 2"
    assert list(over.lines[0].get_xdata()) == [1, 2]
    assert "no codebook usage" in said(codebook_figure(metrics[metrics["stage"] == "b"]))
