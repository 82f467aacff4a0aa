"""What was asked for of scenes against what the judge saw, and skills alone against together. Imports no torch.

All take the rows of an evaluation's `scene_verdicts.jsonl` as a table, of `scene_verdicts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal

from vargpt_lightning.evaluation.analysis.run_plots import PRINT, SERIES, new_figure, note_figure
from vargpt_lightning.evaluation.base.plot_texts import plain_texts
from vargpt_lightning.evaluation.composition.verdicts import VERDICTS
from vargpt_lightning.runs.folder import RunFolder
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import read_jsonl
from vargpt_lightning.utils.heldout import wilson

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

NONE, SEVERAL = "none", "several"
SPLITS = ("seen", "unseen")
TITLES = {"colour": "shape and colour", "count": "thing and count", "pair": "both things"}
"""Each kind of request with what has to be right together."""


def scene_verdicts(run: Path | str) -> pd.DataFrame:
    """What was asked for and what the judge saw, one row for each request that a run's evaluation drew.

    Raises:
        UserError: the run has no judged scenes, or they are of a version that did not keep what was seen.
    """
    import pandas as pd

    file = RunFolder(run).evaluation / VERDICTS
    if not file.is_file():
        raise UserError(f"{file}: no such file; expected the evaluation of a run on scenes (experiments/scenes.yaml)")
    rows = read_jsonl(file)
    if any("things" not in row for row in rows):
        raise UserError(
            f"{file}: written by an earlier version, which did not keep what the judge saw; "
            f"`vargpt evaluate {run}` judges the drawings again"
        )
    return pd.DataFrame(rows)


def confusion(verdicts: pd.DataFrame, what: Literal["colour", "shape"], split: str) -> pd.DataFrame:
    """How often each colour or shape was seen (columns) where one was asked for (rows), in requests for one thing.

    "none" is a drawing without a thing, or whose thing has no clear name; "several" one of more things.
    """
    import pandas as pd

    rows = verdicts[verdicts["kind"] == "colour"]
    place = ("shape", "colour").index(what)
    asked = pd.Series([scene["things"][0][place] for scene in rows["scene"]], index=rows.index, dtype=object)
    seen = pd.Series([_seen(things, what) for things in rows["things"]], index=rows.index, dtype=object)
    names = sorted({*asked, *seen} - {NONE, SEVERAL}, key=str.casefold)
    here = rows["split"] == split
    table = pd.crosstab(asked[here], seen[here])
    table = table.reindex(index=sorted(set(asked), key=str.casefold), columns=[*names, NONE, SEVERAL], fill_value=0)
    return table.rename_axis(index="asked for", columns="seen")


def confusion_figure(verdicts: pd.DataFrame, what: Literal["colour", "shape"]) -> Figure:
    """Confusions of seen and of unseen combinations side by side: shades are shares of a row, numbers are drawings."""
    tables = {split: confusion(verdicts, what, split) for split in SPLITS}
    rows, columns = next(iter(tables.values())).shape
    if not rows:
        return note_figure("no request was for one thing in a colour")
    figure, panels = new_figure(1, 2, width=1.4 + 0.24 * columns, height=1.5 + 0.22 * rows)
    for axes, (split, table) in zip(panels, tables.items(), strict=True):
        axes.grid(False)
        total = table.sum(axis=1)
        share = table.div(total.where(total > 0, 1), axis=0)
        axes.imshow(share, cmap="Greens", vmin=0, vmax=1, aspect="auto")
        for row in range(rows):
            for column in range(columns):
                if count := int(table.iat[row, column]):
                    ink = "white" if share.iat[row, column] > 0.6 else PRINT.ink
                    axes.text(column, row, str(count), ha="center", va="center", fontsize=7, color=ink)
        axes.axvline(columns - 2.5, color=PRINT.faint, linewidth=0.8)  # what is no name stands apart
        axes.set_xticks(range(columns), table.columns, rotation=90, fontsize=8)
        axes.set_yticks(range(rows), table.index, fontsize=8)
        axes.set_xlabel(f"{what} seen", fontsize=8.5, color=PRINT.faint)
        axes.set_ylabel(f"{what} asked for", fontsize=8.5, color=PRINT.faint)
        axes.set_title(f"{split} combinations, {int(total.sum())} drawings", loc="left", fontsize=9.5)
    return plain_texts(figure)


def skill_table(verdicts: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of requests for seen and unseen combinations beside the product of their single skills' accuracies.

    Were the skills of a request independent, both would agree (multiplicative emergence, arXiv 2310.09336). Each skill
    is looked at whatever the others are: that a thing of the shape is there, one of the colour, the number of things;
    of a count, that all things are of the shape. Relations are left out: without both shapes there is none.

    Returns:
        `n`, `right`, `rate` with its Wilson interval `low`, `high`; each skill's accuracy in `skills`, and their
        `product` with `product_low`, `product_high`, the products of bounds at 1 - 0.05 / (number of skills).
    """
    import pandas as pd

    found = []
    for kind, title in TITLES.items():
        for split in SPLITS:
            rows = verdicts[(verdicts["kind"] == kind) & (verdicts["split"] == split)]
            if rows.empty:
                continue
            parts = [_parts(scene, things) for scene, things in zip(rows["scene"], rows["things"], strict=True)]
            hits = {name: sum(each[name] for each in parts) for name in parts[0]}
            right, n = sum(all(each.values()) for each in parts), len(parts)
            low, high = wilson(right, n)
            z = NormalDist().inv_cdf(1 - 0.025 / len(hits))
            bounds = [wilson(count, n, z) for count in hits.values()]
            row: dict[str, Any] = {"what": title, "split": split, "n": n, "right": right}
            row |= {"rate": right / n, "low": low, "high": high}
            row |= {"skills": ", ".join(f"{name} {count / n:.1%}" for name, count in hits.items())}
            row |= {"product": prod(count / n for count in hits.values())}
            row |= {"product_low": prod(low for low, _ in bounds), "product_high": prod(high for _, high in bounds)}
            found.append(row)
    return pd.DataFrame(found)


def skill_figure(verdicts: pd.DataFrame) -> Figure:
    """Accuracies with 95 % intervals, unseen beside seen, and the products of the single skills' accuracies."""
    table = skill_table(verdicts)
    if table.empty:
        return note_figure("no scene was asked for")
    figure, (axes,) = new_figure(1, 1, width=7.5, height=3.4)
    kinds = list(dict.fromkeys(table["what"]))
    offsets = {("seen", ""): -0.24, ("seen", "product"): -0.1, ("unseen", ""): 0.1, ("unseen", "product"): 0.24}
    for (split, which), offset in offsets.items():
        rows = table[table["split"] == split]
        if rows.empty:
            continue
        value = rows[which or "rate"]
        low, high = (rows[f"{which}_{end}" if which else end] for end in ("low", "high"))
        axes.errorbar(
            [kinds.index(what) + offset for what in rows["what"]],
            100 * value,
            yerr=[100 * (value - low).clip(lower=0), 100 * (high - value).clip(lower=0)],
            fmt="s" if which else "o",
            mfc="white" if which else None,
            color=SERIES[SPLITS.index(split)],
            capsize=3,
            label=f"{split}, product of single skills" if which else f"{split}, together",
        )
    axes.set_xticks(range(len(kinds)), kinds)
    axes.set_xlim(-0.5, len(kinds) - 0.5)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("right, per cent", fontsize=8.5, color=PRINT.faint)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return plain_texts(figure)


def _seen(things: list[Mapping[str, Any]], what: str) -> str:
    if len(things) > 1:
        return SEVERAL
    return str(things[0][what] or NONE) if things else NONE


def _parts(scene: Mapping[str, Any], things: list[Mapping[str, Any]]) -> dict[str, bool]:
    """Whether each single skill that a request needs is right, whatever the others are."""
    shape, colour = scene["things"][0]
    shapes = [each["shape"] for each in things]
    number = {"number": len(things) == len(scene["things"])}
    if scene["kind"] == "colour":
        return {"shape": shape in shapes, "colour": colour in [each["colour"] for each in things]} | number
    if scene["kind"] == "count":
        return {"shape": set(shapes) == {shape}} | number
    return {"first": shape in shapes, "second": scene["things"][1][0] in shapes} | number
