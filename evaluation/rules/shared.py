"""What benchmarks of all kinds share: styles of prompts, one score for each record, and means. No torch."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence

from vargpt_lightning.evaluation.base.benchmark import Record, Score
from vargpt_lightning.utils.errors import UserError

SHORT = "\nAnswer the question using a single word or phrase."


def styled(styles: Mapping[str, str], style: str) -> str:
    """Return what a style writes after the question; raises UserError for a style that there is not."""
    if style not in styles:
        raise unknown_style(style, styles)
    return styles[style]


def unknown_style(style: str, known: Iterable[str]) -> UserError:
    """Return the error of a prompt style that there is not."""
    return UserError(f"style: {style!r}; expected one of {', '.join(known)}")


def check_parallel(records: Sequence[Record], scores: Sequence[Score]) -> None:
    """Raise UserError when there is not one score for each record."""
    if len(records) != len(scores):
        raise UserError(f"scores: {len(scores)} for {len(records)} records; expected one for each")


def mean(values: Sequence[float]) -> float:
    """Return the mean; NaN of no values."""
    return sum(values) / len(values) if values else float("nan")


def by_group(values: Sequence[float], groups: Sequence[Hashable], title: str) -> dict[str, float]:
    """Return the mean of each group as `title/<group>`, in the groups' alphabetic order."""
    members: dict[str, list[float]] = {}
    for value, group in zip(values, groups, strict=True):
        members.setdefault(str(group), []).append(value)
    return {f"{title}/{group}": mean(members[group]) for group in sorted(members)}
