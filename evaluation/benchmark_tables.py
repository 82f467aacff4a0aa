"""Tables of measured results beside published ones: what stands in each cell.

One protocol a table. A published row stands beside measured ones only where it followed their protocol. Reads the
result files alone; imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vargpt_lightning.errors import UserError
from vargpt_lightning.evaluation import published
from vargpt_lightning.evaluation.benchmark_outputs import read_rows
from vargpt_lightning.evaluation.benchmarks.base import PROTOCOLS, STATUSES, mean_interval
from vargpt_lightning.results import read_json

COLUMNS = {
    "mmbench": "MMBench",
    "seedbench": "SEED-I",
    "mmmu": "MMMU",
    "pope": "POPE",
    "pope/adversarial": "POPE adv.",
    "pope/popular": "POPE pop.",
    "pope/random": "POPE rand.",
    "mme": "MME-P",
    "gqa": "GQA",
    "textvqa": "TextVQA",
    "vqav2": "VQAv2",
    "scienceqa_img": "SQA-I",
    "okvqa": "OK-VQA",
    "vizwiz": "VizWiz",
}
GENERAL, VQA = list(COLUMNS)[:8], list(COLUMNS)[8:]
PROTOCOL_WORDS = {
    "lmms_eval": "lmms-eval's rules, by which the VARGPT tables were made",
    "lmms_eval_0.3": "the rules of lmms-eval 0.3, the version that the VARGPT tables were made with",
    "official": "the rules of the benchmarks' authors, or of LLaVA's scripts",
    "lenient": "a reader's rules: comparable with nothing that is published",
}
MARKS = {
    "L": "limited: a part of the questions was asked",
    "P": "partial: outputs are missing, pictures could not be read, or groups are incomplete",
    "G": "guessed: some answers were drawn at random",
    "J": "judged: a judge read some of the answers",
    "T": "truncated: some answers reached the limit of new tokens",
    "S": "another prompt style than LLaVA-1.5's",
}
"""Marks of measured cells; published ones have their own letters."""
COUNTS = tuple(status for status in STATUSES if status != "ok")


@dataclass(frozen=True)
class Number:
    """A measured figure on its table's scale with its 95 % interval; any of them None where there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None


@dataclass(frozen=True)
class Measured:
    """One result file: who, what, by which protocol; `numbers` has the columns' keys."""

    system: str
    benchmark: str
    title: str
    protocol: str
    folder: Path
    result: Mapping[str, Any]
    numbers: Mapping[str, Number]

    @property
    def marks(self) -> str:
        """The letters of MARKS that hold for this result."""
        figures, result = self.result["figures"], self.result
        holds = {
            "L": result.get("limit") is not None,
            "P": bool(result.get("partial") or figures.get("partial")),
            "G": bool(figures.get("guessed")),
            "J": bool(figures.get("judged")),
            "T": bool(figures.get("truncated")),
            "S": result.get("style", "llava") != "llava",
        }
        return "".join(letter for letter, yes in holds.items() if yes)

    @property
    def unread(self) -> float:
        """The share of outputs in which no answer was found."""
        figures = self.result["figures"]
        return float((figures.get("empty") or 0) + (figures.get("unparsed") or 0)) / max(1.0, figures.get("n") or 0)


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

    @property
    def marks(self) -> str:
        return "".join(cell.marks for row in self.rows for cell in row.cells)

    @property
    def notes(self) -> list[str]:
        """What is said of single published cells: "MMMU of LLaVA-1.5-7B (hf): ..."."""
        found: dict[tuple[str, str], list[str]] = {}
        for row in self.rows:
            for heading, cell in zip(self.headings, row.cells, strict=True):
                if cell.note and cell.source:
                    found.setdefault((cell.note, heading), []).append(row.label)
        return [f"{heading} of {', '.join(labels)}: {note}." for (note, heading), labels in found.items()]


@dataclass
class Sources:
    """Numbers the sources in the order in which they are first named."""

    names: list[str] = field(default_factory=list)

    def number(self, key: str) -> int:
        text = published.SOURCES[key]
        if text not in self.names:
            self.names.append(text)
        return self.names.index(text) + 1


# ------------------------------------------------------------------------------------------------------- reading


def read_measured(folders: Sequence[Path]) -> list[Measured]:
    """Every result in OUT folders, by folder and benchmark.

    Raises:
        UserError: a folder is not there, or a result file cannot be understood (it is named).
    """
    found = []
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: there is no such folder; expected one that benchmarks were written to")
        here = [_measured(file) for file in sorted(folder.glob("*/result.*.json"))]
        found += sorted(here, key=_order)
    return _with_names(found)


def _order(each: Measured) -> tuple[int, str]:
    known = list(COLUMNS)
    return known.index(each.benchmark) if each.benchmark in known else len(known), each.benchmark


def _measured(file: Path) -> Measured:
    result = read_json(file)
    try:
        figures, scale = dict(result["figures"]), float(result["scale"])
        name, protocol = str(result["benchmark"]), str(result["protocol"])
        headline = figures[result["headline"]]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file} is not a benchmark's result: {error!r}") from error
    count = figures.get("n")
    numbers = {name: _scaled(scale, headline, figures.get("low"), figures.get("high"), count)}
    if name == "pope":
        numbers |= _pope_categories(file.parent, protocol, figures, scale)
    system = str(result.get("model") or file.parent.parent.name)
    return Measured(system, name, str(result.get("title") or name), protocol, file.parent, result, numbers)


def _scaled(scale: float, value: Any, low: Any, high: Any, count: Any) -> Number:
    def scaled(number: Any) -> float | None:
        return None if number is None or not math.isfinite(number) else number * scale

    return Number(scaled(value), scaled(low), scaled(high), None if count is None else int(count))


def _pope_categories(folder: Path, protocol: str, figures: Mapping[str, Any], scale: float) -> dict[str, Number]:
    """Accuracy by category, as the published tables have it, with intervals over the questions of each."""
    values: dict[str, list[float]] = {}
    for row in read_rows(folder / f"scores.{protocol}.jsonl"):
        values.setdefault(str(row.get("category")), []).append(float(row["value"]))
    found = {}
    for key in COLUMNS:
        category = key.partition("/")[2]
        if category and f"accuracy/{category}" in figures:
            each = values.get(category, [])
            low, high = mean_interval(each)
            found[key] = _scaled(scale, figures[f"accuracy/{category}"], low, high, len(each) or None)
    return found


def _with_names(found: Sequence[Measured]) -> list[Measured]:
    """The same results; systems of one name in several folders get the folder's name beside it."""
    homes: dict[str, set[Path]] = {}
    for each in found:
        homes.setdefault(each.system, set()).add(each.folder.parent)
    named = []
    for each in found:
        system = each.system
        if len(homes[system]) > 1:
            system = f"{system} ({each.folder.parent.name})"
        style = each.result.get("style", "llava")
        system += f", {style} prompts" if style != "llava" else ""
        named.append(Measured(system, *[getattr(each, name) for name in list(Measured.__dataclass_fields__)[1:]]))
    return named


def protocols(found: Iterable[Measured]) -> list[str]:
    """The protocols that there are, the default one first."""
    there = {each.protocol for each in found}
    known = [name for name in ("lmms_eval", "lmms_eval_0.3", *PROTOCOLS) if name in there]
    return [*dict.fromkeys(known), *sorted(there - set(known))]


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
        return Cell(marks=each.marks, note="no figure: see the counts")
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
    """(heading, words, tables) for each protocol, then for what is published otherwise."""
    sections = [
        (f"Protocol {name}", f"Scored by {PROTOCOL_WORDS.get(name, 'rules of its own')}.",
         [*protocol_tables(found, name, sources), counts_table(found, name)])
        for name in protocols(found)
    ]  # fmt: skip
    words = "None of these rows followed a protocol above: they are here for orientation, and in no table with ours."
    return [*sections, ("Published otherwise", words, apart_tables(sources))]
