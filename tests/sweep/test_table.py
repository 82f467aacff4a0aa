"""The table's figures: mean and Student's interval over the seeds, the best, the texts."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from rich.console import Console

from vargpt_lightning.sweep.folder import Row
from vargpt_lightning.sweep.plots import plot
from vargpt_lightning.sweep.spec import Measure, Sweep
from vargpt_lightning.sweep.table import SweepTable, best_of, changes_text, stat, summarize
from vargpt_lightning.utils.errors import UserError

SCORE, KID = Measure("score", "score", "max"), Measure("kid_1", "kid", "min")


def row(number: int, cfg: float, seed: int, score: float | None = None, kid: float = 1.0, **more: object) -> Row:
    measures = {} if score is None else {"score": score, "kid_1": kid}
    state = "finished" if measures else "waiting"
    facts = {"changes": {"sampling.cfg": cfg}, "state": state, "error": "", "host": "", "seconds": 0.0, **more}
    return Row(number, f"k{number}", f"n{number}", {"sampling.cfg": cfg}, seed, measures=measures, **facts)  # type: ignore[arg-type]


def sweep(**more: object) -> Sweep:
    return Sweep("s", {"b": Path("b")}, (SCORE, KID), **more)  # type: ignore[arg-type]


ROWS = [row(0, 1.0, 0, 0.5), row(1, 1.0, 1, 0.7), row(2, 2.0, 0, 0.9, 3.0), row(3, 2.0, 1), row(4, 3.0, 0)]


def test_the_interval_is_students() -> None:
    assert stat([4.0]).half is None
    found = stat([1.0, 2.0, 4.0])
    assert (found.mean, found.n) == (pytest.approx(7 / 3), 3)
    assert found.half == pytest.approx(4.303 * 1.527525 / 3**0.5, rel=1e-4)  # scipy.stats.t.interval gives the same
    assert stat([0.0, 1.0] * 50).half == pytest.approx(1.96 * 0.5025 / 10, rel=1e-3)


def test_groups_are_cells_without_their_seed_and_the_best_is_found_each_way() -> None:
    groups = summarize(ROWS, [SCORE, KID])
    assert [len(group.rows) for group in groups] == [2, 2, 1]
    assert groups[0].stats["score"].mean == pytest.approx(0.6) and groups[0].stats["score"].n == 2
    assert best_of(groups, SCORE) == [1] and best_of(groups, KID) == [0]
    assert best_of(groups[:1], SCORE) == [], "nothing to compare"


def shown(table: SweepTable) -> str:
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(table.rich())
    return console.export_text()


def test_the_terminals_table_has_progress_marks_and_errors() -> None:
    failed = row(5, 3.0, 1, state="failed", error="no [b]room[/b] left")
    text = shown(SweepTable(sweep(overrides={"evaluation.names": 4}), [*ROWS, failed]))
    assert "3 finished" in text and "2 waiting" in text and "1 failed" in text
    assert "0.9000 *" in text and "0.6000 ± 1.2706" in text
    assert "failed n5: no [b]room[/b] left" in text and "all cells: evaluation.names=4" in text
    best = shown(SweepTable(sweep(), ROWS, top=1))
    assert "0.9000" in best and "0.6000" not in best and "and 2 more" in best


def test_csv_and_latex_say_the_same() -> None:
    table = SweepTable(sweep(), ROWS)
    lines = list(csv.DictReader(io.StringIO(table.csv())))
    assert [line["sampling.cfg"] for line in lines] == ["1.0", "2.0", "3.0"]
    assert float(lines[0]["score_low"]) == pytest.approx(0.6 - 1.2706, abs=1e-3)
    assert (lines[1]["score_best"], lines[0]["score_best"], lines[2]["score_n"]) == ("1", "0", "0")
    latex = table.latex()
    assert r"kid\_1 $\downarrow$" in latex and r"\boldmath$0.9000$" in latex and r"$0.6000 \pm 1.2706$" in latex
    assert latex.count(r"\\") == 4 and "**0.9000**" in table.markdown()


def test_changes_read_well() -> None:
    assert (
        changes_text({"stages.pretrain": None, "model.x": None, "a.b": 1.5})
        == "without pretrain, model.x=null, a.b=1.5"
    )


@pytest.mark.parametrize("case", ["line", "map", "bars", "sampled"])
def test_each_kind_of_sweep_has_a_plot(tmp_path: Path, case: str) -> None:
    values = {
        "line": [{"a": 1}, {"a": 2}],
        "map": [{"a": 1, "b": 1, "c": 0}, {"a": 1, "b": 2, "c": 0}, {"a": 2, "b": 1, "c": 1}],
        "bars": [{"variant": "x"}, {"variant": "y"}],
        "sampled": [{"a": 1.5, "b": "x"}, {"a": 2.0, "b": "y"}],
    }[case]
    rows = [
        Row(n, str(n), str(n), each, 0, {}, "finished", {"score": float(n), "kid_1": 1.0}, "", "", 0.0)
        for n, each in enumerate(values)
    ]
    table = SweepTable(sweep(space={"a": None}) if case == "sampled" else sweep(), rows)
    plot(table, tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match=r"p\.odt"):
        plot(table, tmp_path / "p.odt")


def test_nothing_finished_is_no_plot(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to plot"):
        plot(SweepTable(sweep(), [row(0, 1.0, 0)]), tmp_path / "p.png")


def test_no_cell_of_the_csv_is_a_formula() -> None:
    formulas = ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", " =1", "\r=1"]
    foreign = [*formulas, "-1.5", "+2", "text", -1.5, None, [1, 2], '=a,"b']
    facts = ("finished", {"score": -0.5}, "", "", 0.0)
    rows = [Row(n, f"k{n}", "n", {"=key": value}, 0, {"=x": value}, *facts) for n, value in enumerate(foreign)]
    heads, *cells = csv.reader(io.StringIO(SweepTable(sweep(), rows).csv()))
    assert heads[0] == "'=key" and [line[0] for line in cells[:7]] == [f"'{text}" for text in [*formulas[:6], " =1"]]
    assert [line[0] for line in cells[7:13]] == ["-1.5", "+2", "text", "-1.5", "", "[1, 2]"]
    assert cells[13][0] == "'=a,\"b" and all(line[1].startswith("'=x=") for line in cells)
    assert [line[2] for line in cells] == ["-0.5"] * len(foreign)


def test_the_same_seed_again_is_the_same_experiment() -> None:
    """A sampler may choose a point again: its trials say nothing of the spread over seeds."""
    (group,) = summarize([row(0, 1.0, 0, 0.5), row(1, 1.0, 0, 0.5), row(2, 1.0, 0, 0.5)], [SCORE])
    assert (group.stats["score"].n, group.stats["score"].half, group.seeds) == (1, None, {0})
    assert "seeds" not in shown(SweepTable(sweep(), [row(n, 1.0, 0, 0.5) for n in range(3)]))
