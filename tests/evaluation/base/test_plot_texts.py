"""Names in plots are shown as they are written: no formulas, and letters of any script."""

from __future__ import annotations

import io
import warnings

import pandas as pd
import pytest
from matplotlib.figure import Figure

from vargpt_lightning.evaluation.analysis.comparisons import difference_figure, interval_figure
from vargpt_lightning.evaluation.base import plot_texts
from vargpt_lightning.evaluation.base.plot_texts import BOX, plain_texts
from vargpt_lightning.evaluation.reports.curves import confusion_svg

NAMES = (r"$\foo$", "$x^2$", "a $ and $ b", "漢字", r"日本 $\bar$", "50% & #1_b")


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_no_formula(name: str) -> None:
    confusion = {"labels": [name, "b"], "columns": [name, "b", "other"], "counts": [[1, 0, 0], [0, 1, 0]]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svg = confusion_svg(confusion, "c")
    assert name.replace("&", "&amp;") in svg
    row = {"run": name, "source": name, "name": name, "split": "val", "value": 0.5, "low": 0.4, "high": 0.6, "n": 9}
    figures = [interval_figure(pd.DataFrame([row]))]
    change = {"run": name, "source": "questions", "split": "val", "kind": name, "n": 3, "difference": 0.1}
    figures.append(difference_figure(pd.DataFrame([change | {"low": 0.0, "high": 0.2}])))
    for figure in figures:
        figure.savefig(io.BytesIO(), format="png")


def test_letters_without_a_font_are_boxes_and_told_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plot_texts, "_font_with", lambda letters: "")
    monkeypatch.setattr(plot_texts, "_told", set())
    figure = Figure()
    axes = figure.add_subplot(title="漢字 x")
    axes.set_yticks([0, 1], ["字", "b"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain_texts(figure).savefig(io.BytesIO(), format="png")
        plain_texts(figure).savefig(io.BytesIO(), format="png")
    assert axes.get_title() == f"{BOX}{BOX} x" and capsys.readouterr().out.count("fonts-noto-cjk") == 1


def test_powers_of_a_logarithmic_axis_stay_formulas() -> None:
    figure = Figure()
    axes = figure.add_subplot(xlabel="$\\foo$")
    axes.plot([1, 1000], [1, 2])
    axes.set_xscale("log")
    plain_texts(figure).savefig(io.BytesIO(), format="png")
    assert all(label.get_parse_math() for label in axes.get_xticklabels()) and not axes.xaxis.label.get_parse_math()
