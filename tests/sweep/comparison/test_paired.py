"""Cells of a sweep beside one of them: drawing by drawing where runs keep them, else seed by seed; and their front."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from vargpt_lightning.sweep.comparison.paired import PairedTable, pareto
from vargpt_lightning.sweep.comparison.pareto_plot import measures_of, pareto_figure, plot_pareto
from vargpt_lightning.sweep.folder import Row
from vargpt_lightning.sweep.spec import Measure, Sweep
from vargpt_lightning.sweep.table import SweepTable
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import write_jsonl

RIGHT = Measure("right", "composition.unseen.all.rate", "max")
NEAREST, SECONDS = Measure("nearest", "identification_1", "max"), Measure("seconds", "cost.seconds", "min")


def made(root: Path, verdicts: dict[str, list[list[int]]], seconds: dict[str, float]) -> SweepTable:
    """A sweep whose cells are right on some of their drawings, a list of them for each seed."""
    rows = []
    for variant, by_seed in verdicts.items():
        for seed, right in enumerate(by_seed):
            name = f"{variant}-{seed}"
            folder = root / name / "evaluation"
            folder.mkdir(parents=True)
            judged = [{"id": f"test-{n}", "split": "unseen", "right": bool(value)} for n, value in enumerate(right)]
            write_jsonl(folder / "scene_verdicts.jsonl", [*judged, {"id": "seen", "split": "seen", "right": True}])
            write_jsonl(folder / "drawing_scores.jsonl", [{"id": "a", "rank": seed}, {"id": "b", "rank": 3}])
            measures = {"right": sum(right) / len(right), "seconds": seconds[variant] + seed / 10, "nearest": 0.5}
            rows.append(Row(len(rows), name, name, {"variant": variant}, seed, {}, "finished", measures, "", "", 0.0))
    return SweepTable(Sweep("s", {"b": Path("b")}, (RIGHT, NEAREST, SECONDS)), rows)


@pytest.fixture
def table(tmp_path: Path) -> SweepTable:
    verdicts = {
        "plain": [[0] * 40, [0] * 20 + [1] * 20],
        "better": [[1] * 30 + [0] * 10, [0] * 10 + [1] * 30],
        "same": [[0] * 40, [0] * 20 + [1] * 20],
    }
    return made(tmp_path, verdicts, {"plain": 1.0, "better": 3.0, "same": 0.5})


def test_drawings_are_compared_one_by_one_and_other_figures_by_seed(table: SweepTable, tmp_path: Path) -> None:
    found = PairedTable(table, "plain", tmp_path)
    assert found.changes[0] == {}
    better, same = found.changes[1], found.changes[2]
    right = better["right"]
    assert (right.difference, right.n, right.of) == (pytest.approx(0.5), 80, "drawing") and right.sure
    assert right.low is not None and right.high is not None and 0.3 < right.low < 0.5 < right.high < 0.7
    assert (same["right"].difference, same["right"].low, same["right"].high) == (0, 0, 0) and not same["right"].sure
    assert (better["nearest"].difference, better["nearest"].n, better["nearest"].of) == (0, 4, "drawing")
    assert (better["seconds"].difference, better["seconds"].n) == (pytest.approx(2.0), 2)
    assert better["seconds"].of == "seed" and better["seconds"].low == pytest.approx(2.0)


def test_the_table_is_written_for_pages_and_for_programs(table: SweepTable, tmp_path: Path) -> None:
    found = PairedTable(table, "plain", tmp_path)
    lines = found.markdown().splitlines()
    assert lines[0] == "|  | right | nearest | seconds |" and lines[2].startswith("| plain | 0.25 |")
    assert lines[3].startswith("| better | 0.75, **+0.5 (+0.")
    rows = list(csv.DictReader(io.StringIO(found.csv())))
    assert [row["cell"] for row in rows] == ["plain", "better", "same"] and rows[0]["right_difference"] == ""
    assert float(rows[1]["right_difference"]) == 0.5 and rows[1]["right_paired_by"] == "drawing"
    with pytest.raises(UserError, match=r"--against plian: no such cell; .*did you mean 'plain'"):
        PairedTable(table, "plian", tmp_path)


def test_what_nothing_beats_in_both_is_on_the_front() -> None:
    points = [(1.0, 0.5), (2.0, 0.9), (2.0, 0.4), (0.5, 0.5), (3.0, 0.9)]
    assert pareto(points) == [3, 1]
    assert pareto(points, "max", "max") == [4]
    assert pareto([], "min", "max") == []


def test_the_plot_has_a_point_for_each_cell_and_the_front(table: SweepTable, tmp_path: Path) -> None:
    cost, gain = measures_of(table, "")
    assert (cost, gain) == (SECONDS, RIGHT)
    panel = pareto_figure(table, cost, gain, "plain").axes[0]
    assert {text.get_text() for text in panel.texts} == {"plain", "better", "same"}
    assert [list(line) for line in panel.lines[-1].get_xydata()] == [[0.55, 0.25], [3.05, 0.75]]
    plot_pareto(table, tmp_path / "front.png", "seconds,nearest")
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match=r"--axes seconds: expected two measures, COST,GAIN"):
        measures_of(table, "seconds")
    with pytest.raises(UserError, match=r"no measure 'sceonds'; .*did you mean 'seconds'"):
        measures_of(table, "sceonds,right")
