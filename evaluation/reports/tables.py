"""Tables of measured results beside published ones: what stands in each cell.

One protocol a table. A published row stands beside measured ones only where it followed their protocol. Reads the
result files alone; imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from vargpt_lightning.evaluation.base.benchmark import STATUSES
from vargpt_lightning.evaluation.reports import published
from vargpt_lightning.evaluation.reports.benchmark_measured import COLUMNS, MARKS, Measured, Number, protocols

GENERAL, VQA = list(COLUMNS)[:8], list(COLUMNS)[8:]
PROTOCOL_WORDS = {
    "lmms_eval": "lmms-eval's rules, by which the VARGPT tables were made",
    "lmms_eval_0.3": "the rules of lmms-eval 0.3, the version that the VARGPT tables were made with",
    "official": "the rules of the benchmarks' authors, or of LLaVA's scripts",
    "exact": "our own rule for our own questions: right when equal up to case, punctuation and spaces",
    "lenient": "a reader's rules: comparable with nothing that is published",
}
COUNTS = tuple(status for status in STATUSES if status != "ok")


@dataclass(frozen=True)
class Cell:
    """What a cell shows; `source` is the number of a footnote."""

    text: str = "–"
    interval: str = ""
    n: str = ""
    marks: str = ""
    note: str = ""
    source: int | None = None


@dataclass(frozen=True)
class TableRow:
    """A row: `measured` ones are ours."""

    label: str
    cells: tuple[Cell, ...]
    measured: bool = False


@dataclass(frozen=True)
class Table:
    """A table with headings; the first column is the rows' labels."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[TableRow, ...]
    note: str = ""
    first: str = "model"
    remarks: tuple[str, ...] = ()

    @property
    def marks(self) -> str:
        return "".join(cell.marks for row in self.rows for cell in row.cells)

    @property
    def notes(self) -> list[str]:
        """Remarks, and what is said of single published cells: "MMMU of LLaVA-1.5-7B (hf): ..."."""
        found: dict[tuple[str, str], list[str]] = {}
        for row in self.rows:
            for heading, cell in zip(self.headings, row.cells, strict=True):
                if cell.note and cell.source:
                    found.setdefault((cell.note, heading), []).append(row.label)
        cells = [f"{heading} of {', '.join(labels)}: {note}." for (note, heading), labels in found.items()]
        return [*(f"{remark}." for remark in self.remarks), *cells]


@dataclass
class Sources:
    """Numbers the sources in the order in which they are first named."""

    names: list[str] = field(default_factory=list)

    def number(self, key: str) -> int:
        text = published.SOURCES[key]
        if text not in self.names:
            self.names.append(text)
        return self.names.index(text) + 1


# ------------------------------------------------------------------------------------------------------- tables


def protocol_tables(found: Sequence[Measured], protocol: str, sources: Sources) -> list[Table]:
    """The tables of one protocol: general benchmarks, question answering, then any others."""
    ours = [each for each in found if each.protocol == protocol]
    there = {key: each.title for each in ours for key in each.numbers}
    others = sorted(set(there) - set(COLUMNS))
    tables = []
    for title, keys in (("General benchmarks", GENERAL), ("Visual question answering", VQA), ("Others", others)):
        columns = [key for key in keys if key in there]
        if columns:
            headings = tuple(COLUMNS.get(key, there[key]) for key in columns)
            rows, notes = _rows(ours, columns, protocol, sources)
            note = " ".join(["Per cent; MME-P in points up to 2000." if "mme" in columns else "Per cent.", *notes])
            tables.append(Table(f"{title}, protocol {protocol}", headings, tuple(rows), note))
    return tables


def _rows(
    ours: Sequence[Measured], columns: Sequence[str], protocol: str, sources: Sources
) -> tuple[list[TableRow], list[str]]:
    by_system: dict[str, dict[str, Cell]] = {}
    for each in ours:
        for key, number in each.numbers.items():
            if key in columns:
                by_system.setdefault(each.system, {})[key] = measured_cell(each, number)
    rows = [
        TableRow(system, tuple(cells.get(key, Cell()) for key in columns), True) for system, cells in by_system.items()
    ]
    notes = []
    for block in published.following(protocol):
        beside = [row for row in block.rows if any(key in row.values for key in columns)]
        old = protocol == "lmms_eval_0.3"  # then these rows followed the very rule
        rows += [published_row(row, columns, sources, drop="V" if old else "") for row in beside]
        notes += [block.note] if beside else []
    return rows, notes


def measured_cell(each: Measured, number: Number) -> Cell:
    """A measured number with its interval, n, and marks."""
    if number.value is None:
        return Cell(marks=each.marks, note="no metric: see the counts")
    interval = "" if number.low is None or number.high is None else f"{number.low:.1f}–{number.high:.1f}"
    count = "" if number.n is None else f"{number.n:,}"
    return Cell(f"{number.value:.1f}", interval, count, each.marks, "; ".join(MARKS[letter] for letter in each.marks))


def published_row(row: published.Row, columns: Sequence[str], sources: Sources, drop: str = "") -> TableRow:
    """A published row, every cell with its source; `drop` names marks that do not hold here."""
    cells = []
    for key in columns:
        value = row.values.get(key)
        if value is None:
            cells.append(Cell())
        else:
            marks = "".join(letter for letter in value.marks if letter not in drop)
            cells.append(Cell(value.shown(), marks=marks, note=value.note, source=sources.number(row.source)))
    return TableRow(row.model, tuple(cells))


def apart_tables(sources: Sources, blocks: Sequence[published.Block] | None = None) -> list[Table]:
    """Published rows that followed none of our protocols, each way of measuring in a table of its own."""
    tables = []
    for block in published.apart() if blocks is None else blocks:
        there = {key for row in block.rows for key in row.values}
        keys = [key for key in (block.columns or COLUMNS) if key in there]
        headings = tuple((block.columns or COLUMNS)[key] for key in keys)
        rows = tuple(published_row(row, keys, sources) for row in block.rows)
        tables.append(Table(block.title, headings, rows, block.note))
    return tables


def counts_table(found: Sequence[Measured], protocol: str) -> Table:
    """How many outputs there are, and how many of them were no plain answer."""
    headings = ("model", "questions", "of", *COUNTS, "skipped", "missing", "new tokens")
    rows = []
    for each in found:
        if each.protocol != protocol:
            continue
        figures, result = each.result["figures"], each.result
        values = [figures.get("n"), result.get("total"), *(figures.get(name) for name in COUNTS)]
        values += [result.get("skipped"), result.get("missing"), result.get("max_new_tokens")]
        texts = [each.system, *("–" if value is None else f"{int(value):,}" for value in values)]
        rows.append(TableRow(each.title, tuple(Cell(text) for text in texts), True))
    return Table(
        f"Counts, protocol {protocol}", headings, tuple(rows), "How many outputs were no plain answer.", "benchmark"
    )


def legend(tables: Iterable[Table]) -> list[tuple[str, str]]:
    """The marks that occur, with their meaning."""
    used = "".join(table.marks for table in tables)
    return [(letter, text) for letter, text in {**MARKS, **published.MARKS}.items() if letter in used]


Section = tuple[str, str, list[Table]]
"""A heading, words under it, tables."""


def all_tables(found: Sequence[Measured], sources: Sources) -> list[Section]:
    """(heading, words, tables) for each protocol, then for what is published otherwise.

    Of benchmarks that are nobody else's nothing is published, and nothing stands beside them.
    """
    sections = [
        (f"Protocol {name}", f"Scored by {PROTOCOL_WORDS.get(name, 'rules of its own')}.",
         [*protocol_tables(found, name, sources), counts_table(found, name)])
        for name in protocols(found)
    ]  # fmt: skip
    if not any(key in COLUMNS for each in found for key in each.numbers):
        return sections
    words = "None of these rows followed a protocol above: they are here for orientation, and in no table with ours."
    return [*sections, ("Published otherwise", words, apart_tables(sources))]
