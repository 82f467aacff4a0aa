"""Tables as text: Markdown for a README, LaTeX for a paper."""

from __future__ import annotations

import re
from collections.abc import Sequence

from vargpt_lightning.evaluation.reports.tables import Cell, Section, Sources, Table, legend

# ------------------------------------------------------------------------------------------------------- Markdown


HEAD = "# Benchmarks\n\nMeasured values with 95 % intervals in brackets and n, the number of questions."


def markdown(sections: Sequence[Section], sources: Sources, head: str = HEAD) -> str:
    """The sections as Markdown below a head; marks and the numbers of sources are superscripts."""
    parts = [head]
    for heading, words, tables in sections:
        parts.append(f"## {escape_markdown(heading)}\n\n{escape_markdown(words)}")
        for table in tables:
            lines = [escape_markdown(text) for text in (table.note, *table.notes) if text]
            parts += [f"### {escape_markdown(table.title)}", _markdown_table(table), *lines]
    marks = [f"- **{letter}** {escape_markdown(text)}" for letter, text in legend(_flat(sections))]
    names = [f"{number}. {escape_markdown(text)}" for number, text in enumerate(sources.names, 1)]
    parts += ["## Marks\n\n" + "\n".join(marks)] if marks else []
    parts += ["## Sources\n\n" + "\n".join(names)] if names else []
    return "\n\n".join(parts) + "\n"


def _flat(sections: Sequence[Section]) -> list[Table]:
    return [table for _, _, tables in sections for table in tables]


def _markdown_table(table: Table) -> str:
    lines = [[table.first, *table.headings], ["---", *["--:"] * len(table.headings)]]
    for row in table.rows:
        label = escape_markdown(row.label)
        lines.append([f"**{label}**" if row.measured else label, *map(_markdown_cell, row.cells)])
    heading, rule, *rows = lines
    return "\n".join("| " + " | ".join(cells) + " |" for cells in ([*map(escape_markdown, heading)], rule, *rows))


def _markdown_cell(cell: Cell) -> str:
    text = escape_markdown(cell.text)
    text += f" [{cell.interval}]" if cell.interval else ""
    text += f" n={cell.n}" if cell.n else ""
    raised = ",".join([*([str(cell.source)] if cell.source else []), *cell.marks])
    return text + (f" <sup>{raised}</sup>" if raised else "")


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is: on one line, without marks, links or HTML."""
    text = " ".join(text.split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#~])", r"\\\1", text)


# ------------------------------------------------------------------------------------------------------- LaTeX

LATEX = {
    "\\": r"\textbackslash{}",
    **{letter: f"\\{letter}" for letter in "{}$&#_%"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "[": "{[}",  # at the start of a line it would belong to the row's end before it
    "≈": r"$\approx$",
    "×": r"$\times$",
    "–": "--",
    "−": "$-$",
    "“": "``",
    "”": "''",
}


def latex(sections: Sequence[Section], sources: Sources) -> str:
    """The sections as LaTeX tables, to be read in by a document that loads booktabs, graphicx and T1 fonts."""
    parts = ["% \\usepackage[T1]{fontenc}\\usepackage[utf8]{inputenc}\\usepackage{booktabs,graphicx}"]
    for heading, _, tables in sections:
        parts.append(f"% {' '.join(heading.split())}")
        parts += [_latex_table(table, sources) for table in tables]
    return "\n\n".join(parts) + "\n"


def _latex_table(table: Table, sources: Sources) -> str:
    lines = [" & ".join(escape_latex(text) for text in (table.first, *table.headings)) + r" \\", r"\midrule"]
    before = None
    for row in table.rows:
        if before is True and not row.measured:
            lines.append(r"\midrule")
        before = row.measured
        lines.append(" & ".join([escape_latex(row.label), *map(_latex_cell, row.cells)]) + r" \\")
    notes = [table.note, "Intervals: 95\u202f%." if any(row.measured for row in table.rows) else ""]
    notes += table.notes
    notes += [f"{letter}: {text}." for letter, text in legend([table])]
    used = sorted({cell.source for row in table.rows for cell in row.cells if cell.source})
    notes += [f"[{number}] {sources.names[number - 1]}." for number in used]
    caption = escape_latex(f"{table.title}. " + " ".join(note for note in notes if note))
    columns = "l" + "r" * len(table.headings)
    return "\n".join([
        r"\begin{table}[t]", r"\centering", rf"\caption{{{caption}}}", r"\resizebox{\linewidth}{!}{%",
        rf"\begin{{tabular}}{{@{{}}{columns}@{{}}}}", r"\toprule", *lines, r"\bottomrule", r"\end{tabular}}",
        r"\end{table}",
    ])  # fmt: skip


def _latex_cell(cell: Cell) -> str:
    text = escape_latex(cell.text)
    small = [f"[{escape_latex(cell.interval)}]"] if cell.interval else []
    small += [f"$n$={cell.n}"] if cell.n else []
    text += rf" {{\scriptsize {' '.join(small)}}}" if small else ""
    raised = ",".join([*([str(cell.source)] if cell.source else []), *cell.marks])
    return text + (rf"\textsuperscript{{{raised}}}" if raised else "")


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it is, on one line."""
    text = " ".join(text.replace("\u202f", " ").split())
    return "".join(LATEX.get(letter, letter) for letter in text)
