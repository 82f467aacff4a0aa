"""A comparison as Markdown, HTML, LaTeX and JSON.

OUT/compare.md, compare.tex   the tables
OUT/compare.html              the tables, and questions that changed sides with their pictures
OUT/compare.json              all numbers
OUT/changed.jsonl             every question that changed sides
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vargpt_lightning.evaluation.base.paired_tests import LEVEL, POWER, RESAMPLES, Paired
from vargpt_lightning.evaluation.compare.comparison import CHANGED, Comparison
from vargpt_lightning.evaluation.compare.pictures import shown_changes
from vargpt_lightning.evaluation.reports.pages import Pages
from vargpt_lightning.evaluation.reports.table_text import escape_markdown, latex, markdown
from vargpt_lightning.evaluation.reports.tables import Cell, Section, Sources, Table, TableRow
from vargpt_lightning.runs.folder import now
from vargpt_lightning.runs.provenance import package_versions, source_commit
from vargpt_lightning.utils.files import plain, write_bytes, write_json, write_jsonl

PAGE = "compare.html"
IN_WORDS = 20  # of the questions that changed sides, in Markdown
NOTE = (
    f"Means and differences in per cent, drawings of prompts by CLIP score in its points. The interval is the 95 % "
    f"percentile bootstrap's of {RESAMPLES:,} resamples of whole groups of questions (those of one picture). p is of "
    "McNemar's exact test where each question stands alone and is right or wrong, else of the paired bootstrap (B); p "
    "(Holm) is corrected for all lines. Needed: how many questions like these show a difference of this size "
    f"({100 * POWER:.0f} % power at the {100 * LEVEL:.0f} % level); visible: the smallest difference that these show."
)
CATEGORIES = "Differences by kind of question, not tested: with many kinds some differ by chance."
HEADINGS = ("n", "first", "second", "difference", "better", "worse", "p", "p (Holm)", "needed", "visible")
PART_HEADINGS = HEADINGS[:6]


def write_comparison(comparison: Comparison, out: Path, most: int = 8) -> Path:
    """Write all forms of a comparison, and return the page.

    Args:
        most: questions that changed sides on the page, of each set and direction.
    """
    sections, shown = sections_of(comparison), shown_changes(comparison, most)
    names = [system.name for system in comparison.systems]
    title = " and ".join(names) if len(names) == 2 else ", ".join(names)
    head = f"# {escape_markdown(title)}\n\n" + "".join(f"- {escape_markdown(text)}\n" for text in verdicts(comparison))
    head += "".join(f"- Note: {escape_markdown(text)}\n" for text in comparison.remarks)
    changes = [
        f"| {escape_markdown(each.title)} | {escape_markdown(each.id)} | {escape_markdown(each.prompt[:120])} | "
        f"{escape_markdown(each.expected[:60])} | {escape_markdown(each.base_answer[:60])} | "
        f"{escape_markdown(each.answer[:60])} ({escape_markdown(each.system)}) |"
        for each in shown[:IN_WORDS]
    ]
    table = f"| questions | id | prompt | right | {escape_markdown(names[0])} | other |\n|---|---|---|---|---|---|\n"
    text = markdown(sections, Sources(), head.rstrip())
    text += f"\n## Some of {len(comparison.changed):,} questions that changed sides\n\n{table}" if changes else ""
    write_bytes(out / "compare.md", (text + "\n".join(changes) + "\n").encode("utf-8", "replace"))
    write_bytes(out / "compare.tex", latex(sections, Sources()).encode("utf-8", "replace"))
    write_json(out / "compare.json", as_json(comparison))
    rows = comparison.changed[list(CHANGED)].to_dict("records")
    write_jsonl(out / "changed.jsonl", [_plain(row) for row in rows])
    return Pages(out).write(
        PAGE,
        "compare.html.j2",
        title=title,
        verdicts=verdicts(comparison),
        remarks=comparison.remarks,
        sections=sections,
        base=comparison.base,
        shown=shown,
        changed=len(comparison.changed),
    )


def verdicts(comparison: Comparison) -> list[str]:
    """What was found, a sentence a line."""
    return [
        f"{line.title}: {line.system} is "
        + (
            f"{'better' if line.test.difference > 0 else 'worse'} than {comparison.base} by "
            f"{abs(100 * line.test.difference):.1f} points ({_span(line.test)}; p = {_p(line.p_holm)} after Holm)"
            if line.p_holm < LEVEL
            else f"not told apart from {comparison.base}: {_signed(line.test.difference)} points ({_span(line.test)}; "
            f"p = {_p(line.p_holm)} after Holm)"
            + (
                f"; about {line.test.needed:,.0f} like these would show a difference of this size"
                if math.isfinite(line.test.needed)
                else f"; {line.test.n:,} like these show differences from {100 * line.test.visible:.1f} points on"
                if line.test.visible
                else ""
            )
        )
        for line in comparison.lines
    ]


def sections_of(comparison: Comparison) -> list[Section]:
    """The tables: all sets of questions, then the kinds of each."""
    tables = [
        Table(
            f"{name} less {comparison.base}",
            _named(HEADINGS, comparison.base, name),
            tuple(TableRow(line.title, _cells(line.test, line.p_holm), True) for line in own),
            NOTE,
            "questions",
        )
        for name, own in _by_system(comparison)
    ]
    parts = [
        Table(
            f"{line.title}: {line.system} less {comparison.base}",
            _named(PART_HEADINGS, comparison.base, line.system),
            tuple(TableRow(kind, _cells(test)[: len(PART_HEADINGS)], True) for kind, test in line.parts.items()),
            first="kind",
        )
        for line in comparison.lines
        if line.parts
    ]
    words = f"The others are compared with {comparison.base}, the first."
    return [("Differences", words, tables), *([("Kinds of questions", CATEGORIES, parts)] if parts else [])]


def _by_system(comparison: Comparison) -> list[tuple[str, list[Any]]]:
    names = [system.name for system in comparison.systems[1:]]
    return [(name, [line for line in comparison.lines if line.system == name]) for name in names]


def _named(headings: Sequence[str], base: str, other: str) -> tuple[str, ...]:
    names = {"first": base, "second": other}
    return tuple(names.get(heading, heading) for heading in headings)


def _cells(test: Paired, p_holm: float = math.nan) -> tuple[Cell, ...]:
    count = f"{test.n:,}" if test.groups == test.n else f"{test.n:,} in {test.groups:,} groups"
    p = _p(test.p) + ("" if test.mcnemar == test.p and test.groups == test.n else " (B)")
    needed = f"{test.needed:,.0f}" if math.isfinite(test.needed) else "–"
    return (
        Cell(count),
        Cell(f"{100 * test.base:.1f}"),
        Cell(f"{100 * test.other:.1f}"),
        Cell(_signed(test.difference), _span(test)),
        Cell(f"{test.better:,}"),
        Cell(f"{test.worse:,}"),
        Cell(p),
        Cell(_p(p_holm)),
        Cell(needed),
        Cell(f"{100 * test.visible:.1f}"),
    )


def _signed(difference: float) -> str:
    return f"{100 * difference:+.1f}".replace("-", "−")


def _span(test: Paired) -> str:
    return f"{_signed(test.low)} to {_signed(test.high)}"


def _p(value: float) -> str:
    return (
        "–"
        if math.isnan(value)
        else "< 0.0001"
        if value < 0.0001
        else f"{value:.4f}"
        if value < 0.1
        else f"{value:.2f}"
    )


def as_json(comparison: Comparison) -> dict[str, Any]:
    """All numbers; what is infinite or not there is null."""
    return {
        "version": 1,
        "base": comparison.base,
        "systems": [{"name": system.name, "path": str(system.path)} for system in comparison.systems],
        "level": LEVEL,
        "power": POWER,
        "resamples": RESAMPLES,
        "lines": [
            {"system": line.system, "questions": line.title, **_plain(line.test._asdict()), "p_holm": line.p_holm}
            | {"kinds": {kind: _plain(test._asdict()) for kind, test in line.parts.items()}}
            for line in comparison.lines
        ],
        "remarks": list(comparison.remarks),
        "versions": package_versions(("vargpt-lightning", "numpy", "pandas")) | {"commit": source_commit()},
        "created": now(),
    }


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row of plain values; numbers that are none are null."""
    values = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()
    }
    made: dict[str, Any] = plain(values)
    return made
