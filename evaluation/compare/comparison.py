"""Systems compared with the first of them: a test for each set of questions, by category, what changed. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vargpt_lightning.evaluation.analysis.comparisons import KEYS, paired_differences, with_scores
from vargpt_lightning.evaluation.base.paired_tests import Paired, holm
from vargpt_lightning.evaluation.compare.check import check_alike, rows_of
from vargpt_lightning.evaluation.compare.systems import Compared, SetKey, title_of
from vargpt_lightning.utils.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

WHOLE = "whole groups"
CHANGED = ("run", "source", "split", "kind", "id", "prompt", "expected", "base_answer", "answer", "base_score", "score")
KEPT = ("picture", "files", "files_base")


@dataclass(frozen=True)
class Line:
    """A system against the first on one set of questions; `p_holm` is corrected for all lines of the comparison.

    `parts` are its kinds of questions or categories, where it has several.
    """

    system: str
    title: str
    test: Paired
    p_holm: float
    parts: Mapping[str, Paired] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """What was found: lines, the questions that changed sides (columns CHANGED and KEPT), and what is to be known."""

    base: str
    systems: Sequence[Compared]
    lines: Sequence[Line]
    changed: pd.DataFrame
    remarks: Sequence[str]


def compare(
    systems: Sequence[Compared], sets: Sequence[SetKey], allow: Collection[str] = (), remarks: Sequence[str] = ()
) -> Comparison:
    """Compare all systems with the first.

    Args:
        sets: of questions, which all have.
        allow: differences to let pass: n, prompts.
        remarks: what is known already.

    Raises:
        UserError: prompts, protocols or n differ, or nothing has a score.
    """
    import pandas as pd

    base = systems[0].name
    remarks = [*remarks, *check_alike(systems, sets, allow)]
    table = pd.concat([rows_of(system.table, key) for system in systems for key in sets], ignore_index=True)
    table["split"] = table["split"].fillna("")
    for name in ("seed", "group", "picture"):
        table[name] = table[name].astype(object)
    if "prompts" in allow:
        table["prompt"] = _prompts_of(table, base)
    scored = with_scores(table)
    whole = pd.concat([scored, whole_groups(scored)], ignore_index=True)
    totals = paired_differences(whole, base, by=("source", "split"))
    if totals.empty:
        raise UserError(f"{', '.join(system.name for system in systems)}: no question has a score in all of them")
    tested = set(totals[["source", "split"]].itertuples(index=False, name=None))
    if unscored := [title_of(key) for key in sets if key not in tested]:
        remarks.append(f"without a score in two of them, and so not compared: {'; '.join(unscored)}")
    parts = paired_differences(whole, base)
    corrected = holm(list(totals["p"]))
    lines = [
        Line(row["run"], title_of((row["source"], row["split"])), _paired(row), p, _parts(parts, row))
        for row, p in zip(totals.to_dict("records"), corrected, strict=True)
    ]
    if few := [line.title for line in lines if line.test.groups < 20]:
        remarks.append(f"fewer than 20 groups of questions, for which a bootstrap is no proof: {', '.join(few)}")
    return Comparison(base, systems, lines, changed_sides(scored, base), remarks)


def _prompts_of(table: pd.DataFrame, base: str) -> list[Any]:
    """Each question in the words of the first system, so that it is paired."""
    keys = [*table[["source", "split", "id"]].itertuples(index=False, name=None)]
    first = {key: prompt for key, run, prompt in zip(keys, table["run"], table["prompt"], strict=True) if run == base}
    return [first.get(key) for key in keys]


def whole_groups(scored: pd.DataFrame) -> pd.DataFrame:
    """A row for each group of questions that is right only where all are: MMBench's rotations, MME's pairs.

    Args:
        scored: of `comparisons.with_scores`.
    """
    grouped = scored[scored["group"].notna()]
    if grouped.empty:
        return grouped
    sizes = grouped.groupby(["run", "source", "split", "group"], sort=False)["id"].transform("size")
    whole = grouped[sizes > 1]
    if whole.empty:
        return whole
    rows = whole.groupby(["run", "source", "split", "group"], sort=False, as_index=False).agg(
        value=("score", lambda scores: float((scores == 1).all())), kind=("kind", "first")
    )
    rows = rows.assign(id=rows["group"], prompt="", split=rows["split"] + f", {WHOLE}", group=None)
    return rows.reindex(columns=whole.columns).astype({"picture": object})


def changed_sides(scored: pd.DataFrame, base: str) -> pd.DataFrame:
    """The questions whose score another system has higher or lower: the largest changes first, then by a hash."""
    mine = scored[scored["run"] == base]
    pairs = scored[scored["run"] != base].merge(
        mine[[*KEYS, "answer", "score", "files"]], on=KEYS, suffixes=("", "_base")
    )
    pairs = pairs[pairs["score"] != pairs["score_base"]].rename(
        columns={"answer_base": "base_answer", "score_base": "base_score"}
    )
    order = pairs.assign(
        size=-(pairs["score"] - pairs["base_score"]).abs(), hash=[_hash(id_) for id_ in pairs["id"]]
    ).sort_values(["run", "source", "split", "size", "hash"], kind="stable")
    return order[[*CHANGED, *KEPT]].reset_index(drop=True)


def _hash(text: Any) -> str:
    return hashlib.sha256(str(text).encode("utf-8", "replace")).hexdigest()


def _paired(row: Mapping[str, Any]) -> Paired:
    return Paired(*(row[name] for name in Paired._fields))


def _parts(parts: pd.DataFrame, line: Mapping[str, Any]) -> dict[str, Paired]:
    """The lines of a set's kinds of questions; none where it has one."""
    own = parts[(parts[["run", "source", "split"]] == [line["run"], line["source"], line["split"]]).all(axis=1)]
    found = {str(row["kind"]): _paired(row) for row in own.to_dict("records")}
    return found if len(found) > 1 else {}
