"""Whether evaluations can be compared: the same questions, in the same words, by the same rules. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from vargpt_lightning.evaluation.compare.systems import Compared, SetKey, title_of
from vargpt_lightning.utils.counted import counted
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import different

if TYPE_CHECKING:
    import pandas as pd

ALLOWED = ("n", "prompts")
"""Differences that --allow may let pass: only shared questions are compared; the same question was put otherwise."""
SEEDS = "seeds"
"""Of drawings: those of other seeds are paired by prompt alone, which is as right, and less sharp."""


def check_alike(systems: Sequence[Compared], sets: Sequence[SetKey], allow: Collection[str] = ()) -> list[str]:
    """Refuse evaluations of which a difference would say nothing; return what was let pass, in words.

    Raises:
        UserError: prompts, protocols, right answers or the number of questions differ, with which.
    """
    found = [each for key in sets for other in systems[1:] for each in _differences(systems[0], other, key)]
    refused = [(kind, text) for kind, text in found if kind not in (*allow, SEEDS)]
    if refused:
        more = f"; and {len(refused) - 4} more" if len(refused) > 4 else ""
        kinds = [kind for kind in ALLOWED if kind in dict(refused)]
        offered = f", or --allow {','.join(kinds)}" if kinds else ""
        raise UserError(
            "; ".join(text for _, text in refused[:4])
            + f"{more}; expected evaluations with the same questions, prompts and protocol{offered}"
        )
    return [text for _, text in found]


def _differences(base: Compared, other: Compared, key: SetKey) -> Iterator[tuple[str, str]]:
    """(kind, words) of each way in which two systems' sets differ."""
    title, names = title_of(key), f"{base.name} and {other.name}"
    mine, theirs = base.rules.get(key, {}), other.rules.get(key, {})
    for name in dict.fromkeys([*mine, *theirs]):
        if mine.get(name) != theirs.get(name):
            if name == "seed":
                yield SEEDS, f"{title}: drawn with the seeds {mine.get(name)} and {theirs.get(name)} of {names}"
                continue
            kind, apart = "prompts" if name == "style" else "protocols", different(mine.get(name), theirs.get(name))
            yield kind, f"{title}: the protocols differ: {name} is {' and '.join(apart)} of {names}"
    first, second = rows_of(base.table, key), rows_of(other.table, key)
    pairs = first.merge(second, on="id", suffixes=("", "_other"))
    for name, words in (("prompt", "prompts"), ("expected", "answers"), ("kind", "kinds"), ("seed", SEEDS)):
        differ = [
            row
            for row in zip(pairs["id"], pairs[name], pairs[f"{name}_other"], strict=True)
            if _text(row[1]) != _text(row[2])
        ]
        if differ:
            id_, before, after = differ[0]
            shown = f"{_text(before)[:60]!r} and {_text(after)[:60]!r}"
            yield (
                words,
                f"{title}: the {words} of {counted(len(differ), 'question')} differ, such as {id_!r}: {shown} of "
                f"{names}" + ("; paired by prompt alone" if words == SEEDS else ""),
            )
    if not len(first) == len(second) == len(pairs):
        only = {**_missing(second, first, other.name), **_missing(first, second, base.name)}
        lacking = "".join(f"; {name} lacks {count}, such as {id_!r}" for name, (count, id_) in only.items())
        yield "n", f"{title}: n differs: {len(first)} and {len(second)} of {names}{lacking}"


def rows_of(table: pd.DataFrame, key: SetKey) -> pd.DataFrame:
    """The rows of a set."""
    return table[(table["source"] == key[0]) & (table["split"].fillna("") == key[1])]


def _missing(rows: pd.DataFrame, of: pd.DataFrame, name: str) -> dict[str, tuple[int, str]]:
    lost = of.loc[~of["id"].isin(set(rows["id"])), "id"]
    return {name: (len(lost), str(lost.iloc[0]))} if len(lost) else {}


def _text(value: object) -> str:
    """A value as text; what is missing is nothing, and 3.0 of a column with gaps is 3."""
    if value is None or value != value:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
