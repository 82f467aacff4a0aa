"""Runs beside each other: figures with their intervals, and differences over the same questions. Imports no torch.

Two intervals that overlap say little of a difference: most of their width is that some questions are hard, for both
runs. The paired difference takes the same questions and leaves that out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vargpt_lightning.evaluation.analysis.run_plots import PRINT, SERIES, new_figure, note_figure
from vargpt_lightning.evaluation.base.exact_match import is_right
from vargpt_lightning.evaluation.base.paired_tests import Paired, paired
from vargpt_lightning.evaluation.base.plot_texts import plain_texts
from vargpt_lightning.utils.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

KEYS = ["source", "split", "kind", "id", "prompt"]
PARTS = ("source", "split", "kind")


def with_scores(predictions: pd.DataFrame) -> pd.DataFrame:
    """The predictions that are worth something, with a column `score` from 0 to 1, one kind of question at a time.

    A question's score is 1 for the right answer, a drawing's (kind "identification_1") 1 where of all real pictures
    the one that was asked for is the nearest, a benchmark's as its rule says.

    Args:
        predictions: the table of `results.load_runs`.
    """
    kinds = predictions["kind"].astype(object)  # a column of nothing but gaps is one of numbers
    table = predictions.assign(score=predictions["value"].astype(float), kind=kinds)
    asked = (table["source"] == "questions").to_numpy()
    pairs = zip(table.loc[asked, "answer"], table.loc[asked, "expected"], strict=True)
    table.loc[asked, "score"] = [float(is_right(str(answer), str(expected))) for answer, expected in pairs]
    # what drew nothing has no rank, and counts as missed; without any ranks nothing was measured
    drawn = (table["source"] == "drawings") & table["run"].isin(table.loc[table["rank"].notna(), "run"])
    table.loc[drawn, "score"] = (table.loc[drawn, "rank"] == 0).astype(float)
    table.loc[drawn, "kind"] = "identification_1"
    table["kind"] = table["kind"].fillna("")
    return table.dropna(subset="score").drop_duplicates(["run", *KEYS], keep="last")  # what was asked again counts


def paired_differences(predictions: pd.DataFrame, base: str, by: Sequence[str] = PARTS) -> pd.DataFrame:
    """What each other run scores above `base` on the questions that both were asked, by kind of question.

    Args:
        predictions: the table of `results.load_runs`, of two runs or more.
        base: the run (a name of its column `run`) that the others are compared with.
        by: the columns that name a line of the result.

    Returns:
        one row for each run and kind: `n` shared questions, the mean of each, their `difference`, and `low` and
        `high`, the ends of its 95 % bootstrap interval (pictures, or a benchmark's groups, are resampled, with all
        their questions); on how many questions the run is `better` and `worse`; the other columns are those of
        `paired_tests.Paired`.

    Raises:
        UserError: other runs have predictions, and this one has none.
    """
    import pandas as pd

    scored = with_scores(predictions)
    if len(scored) and base not in set(scored["run"]):
        there = ", ".join(map(str, scored["run"].unique())) or "none"
        raise UserError(f"base: {base!r}; expected one of the runs with predictions: {there}")
    mine = scored.loc[scored["run"] == base, [*KEYS, "picture", "group", "score"]]
    found = []
    for run, theirs in scored[scored["run"] != base].groupby("run", sort=False):
        pairs = mine.merge(theirs[[*KEYS, "score"]], on=KEYS, suffixes=("_base", "_other"))
        for keys, rows in pairs.groupby(list(by), sort=False, dropna=False):
            groups = rows["group"].fillna(rows["picture"]).fillna(rows["id"])
            test = paired(list(rows["score_base"]), list(rows["score_other"]), list(groups))
            found.append((run, *keys, *test))
    return pd.DataFrame(found, columns=["run", *by, *Paired._fields])


def changed_answers(predictions: pd.DataFrame) -> pd.DataFrame:
    """The questions that some runs answer rightly and others do not: a row a question, and in a column a run's answer.

    Args:
        predictions: the table of `results.load_runs`.
    """
    scored = with_scores(predictions)
    asked = scored[scored["source"] == "questions"]
    changed = asked[asked.groupby(KEYS)["score"].transform("nunique") > 1]
    return changed.pivot(index=["kind", "split", "id", "prompt", "expected"], columns="run", values="answer")


def interval_figure(evaluations: pd.DataFrame, most: int = 24) -> Figure:
    """The figures that have 95 % intervals, of each run beside the others'.

    Args:
        evaluations: the table of `results.load_runs`.
        most: so many figures are shown, the first ones.
    """
    known = evaluations.dropna(subset=["value", "low", "high"])
    if known.empty:
        return note_figure("no metric has an interval: none of the runs was evaluated")
    keys = ["source", "name", "split"]
    rows = known[keys].drop_duplicates().head(most).reset_index(drop=True)
    runs = list(dict.fromkeys(known["run"]))
    height = 0.7 + 0.2 * len(runs) + len(rows) * (0.13 + 0.09 * len(runs))
    figure, (axes,) = new_figure(1, 1, width=8.0, height=height)
    for number, run in enumerate(runs):
        own = rows.merge(known[known["run"] == run], on=keys, how="left")
        places = own.index + (number - (len(runs) - 1) / 2) * 0.6 / len(runs)
        # the ends at 0 and at 1 are off by a rounding
        ends = [(own["value"] - own["low"]).clip(lower=0), (own["high"] - own["value"]).clip(lower=0)]
        colour = SERIES[number % len(SERIES)]
        axes.errorbar(own["value"], places, xerr=ends, fmt="o", markersize=3.5, capsize=1.5, color=colour, label=run)
    labels = [f"{row.source}: {row.name}, {row.split}" for row in rows.itertuples(index=False)]
    axes.set_yticks(range(len(rows)), labels, color=PRINT.ink)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_title("with 95 % intervals", loc="left", fontsize=9.5, color=PRINT.ink)
    figure.legend(loc="outside lower center", frameon=False, fontsize=9)
    return plain_texts(figure)


def difference_figure(differences: pd.DataFrame) -> Figure:
    """Paired differences with their 95 % intervals, one panel a run; filled where the interval leaves out zero.

    Args:
        differences: of `paired_differences`.
    """
    if differences.empty:
        return note_figure("nothing to compare: no two runs were asked the same questions")
    runs = list(dict.fromkeys(differences["run"]))
    parts = [differences[differences["run"] == run].reset_index(drop=True) for run in runs]
    heights = [0.75 + 0.24 * len(rows) for rows in parts]
    figure, panels = new_figure(len(runs), 1, width=8.0, height=sum(heights) / len(runs), heights=heights)
    for axes, run, rows in zip(panels, runs, parts, strict=True):
        axes.sharex(panels[0])
        axes.axvline(0, color=PRINT.faint, linewidth=1)
        for place, row in rows.iterrows():
            clear = row["low"] > 0 or row["high"] < 0
            colour = PRINT.faint if not clear else SERIES[0] if row["difference"] > 0 else SERIES[1]
            ends = [[row["difference"] - row["low"]], [row["high"] - row["difference"]]]
            face = colour if clear else "white"
            axes.errorbar(row["difference"], place, xerr=ends, fmt="o", capsize=3, color=colour, markerfacecolor=face)
        words = [" ".join(f"{row.kind} {row.split}".split()) for row in rows.itertuples(index=False)]
        labels = [f"{row.source}: {said} (n = {row.n})" for row, said in zip(rows.itertuples(), words, strict=True)]
        axes.set_yticks(range(len(rows)), labels, color=PRINT.ink)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_title(f"{run}: better to the right", loc="left", fontsize=9.5, color=PRINT.ink)
    return plain_texts(figure)
