"""What the report shows of drawings: their figures, and samples beside their references. Imports no torch.

Reads OUT/images.json and OUT/samples.jsonl (id, instruction, caption, drawing, reference, clip).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from vargpt_lightning.evaluation.formats.layouts_rows import Picture
from vargpt_lightning.evaluation.harness.outputs import read_rows
from vargpt_lightning.evaluation.reports import published
from vargpt_lightning.evaluation.reports.benchmark_examples import thumbnail, visible
from vargpt_lightning.evaluation.reports.tables import Cell, Section, Sources, Table, TableRow, apart_tables
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import read_json

SHOWN = 12  # samples of each kind: best, worst, by hash
SPREAD = ("std", "error")
EXPLAINING = ("n", "truncated")
TITLES = {"fid": "FID", "sfid": "sFID", "kid": "KID", "isc": "Inception Score", "clip": "CLIP score", "mind": "MIND",
          "fd_dinov2": "FD-DINOv2"}  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """A drawing beside its reference, both as data URIs, empty where a file is missing or does not decode."""

    id: str
    instruction: str
    caption: str
    clip: str
    drawing: str
    reference: str


@dataclass(frozen=True)
class Drawn:
    """A system's drawings: the figures, remarks that go with them, settings, and groups of (heading, samples).

    `how` says what numbers of two systems must share to stand in one table: resize rule, network, words.
    """

    system: str
    how: str
    table: Table
    settings: Mapping[str, Any]
    groups: Sequence[tuple[str, Sequence[Sample]]]


def read_drawn(folders: Sequence[Path], names: Mapping[Path, str] | None = None) -> list[Drawn]:
    """The drawings of every folder that has an images.json; `names` are those of the systems, else the folders'.

    Raises:
        UserError: an images.json that cannot be understood.
    """
    found = [folder for folder in folders if (folder / "images.json").is_file()]
    return [_drawn(folder, (names or {}).get(folder)) for folder in found]


def _drawn(folder: Path, name: str | None) -> Drawn:
    result = read_json(folder / "images.json")
    if not isinstance(result, dict) or not isinstance(result.get("metrics"), dict):
        raise UserError(f"{folder / 'images.json'} is not a result of drawings: expected an object with metrics")
    settings = result["settings"] if isinstance(result.get("settings"), dict) else {}
    remarks = tuple(visible(str(mark), 300) for mark in result.get("marks") or ())
    system = name or str(result.get("model") or settings.get("model") or folder.name)
    how = _how(settings)
    figures = list(figures_of(result["metrics"], remarks))
    count = result.get("n")
    cells = Cell(f"{count:,}" if isinstance(count, int) else "–"), *(cell for _, cell in figures)
    row = TableRow(system, cells, True)
    table = Table(f"Drawings{how and f', {how}'}", ("n", *(title for title, _ in figures)), (row,), "", remarks=remarks)
    return Drawn(system, how, table, dict(_flat(settings)), _groups(folder))


def _how(settings: Mapping[str, Any]) -> str:
    """The resize rule of the features, and the network and words of the CLIP score."""
    clip = settings.get("clip")
    words = [f"Inception {settings['variant']}"] if settings.get("variant") else []
    if isinstance(clip, Mapping):
        names = [clip.get(key) for key in ("library", "model", "weights")]
        words.append("CLIP " + " ".join(str(name) for name in names if name) + f" of the {clip.get('text', 'text')}")
    return visible("; ".join(words), 300)


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        title = f"{before}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            yield from _flat(value, f"{title} ")
        elif value not in (None, "", [], ()):
            yield title, ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else visible(str(value), 400)


def figures_of(metrics: Mapping[str, Any], remarks: Sequence[str] = ()) -> Iterator[tuple[str, Cell]]:
    """(heading, cell) of each metric; `x_std` or `x_error` is the spread of `x`, `x_n` and the like explain it.

    Every figure of a set with fewer pictures than features has the mark F.
    """
    for name, value in metrics.items():
        parent = next((base for base in metrics if name != base and name.startswith(f"{base}_")), None)
        if parent is not None and name.removeprefix(f"{parent}_") in (*SPREAD, *EXPLAINING):
            continue
        spread = next((metrics[f"{name}_{key}"] for key in SPREAD if _is_number(metrics.get(f"{name}_{key}"))), None)
        told = {key: metrics.get(f"{name}_{key}") for key in EXPLAINING}
        note = ", ".join(f"{key} {_text(item)}" for key, item in told.items() if item is not None)
        few = any(remark.startswith((f"few_samples: {name} ", f"unknown_statistics: {name} ")) for remark in remarks)
        cell = Cell(_text(value), "" if spread is None else f"± {_text(spread)}", marks="F" if few else "", note=note)
        yield TITLES.get(name, name.replace("_", " ")), cell


def drawn_sections(drawn: Sequence[Drawn], sources: Sources) -> list[Section]:
    """Measured drawings, systems that were measured alike in one table, and the published numbers apart."""
    by_kind: dict[tuple[str, tuple[str, ...]], list[Drawn]] = {}
    for each in drawn:
        by_kind.setdefault((each.how, each.table.headings), []).append(each)
    tables = []
    for group in by_kind.values():
        rows = tuple(row for each in group for row in each.table.rows)
        several = len(group) > 1
        remarks = tuple(f"{each.system}: {text}" if several else text for each in group for text in each.table.remarks)
        tables.append(replace(group[0].table, rows=rows, remarks=remarks))
    words = "± is the standard deviation over subsets or splits (KID, Inception Score) or the standard error (CLIP)."
    apart = "It is not known how these were measured, so do not compare them with the numbers above."
    published_tables = apart_tables(sources, (published.DRAWN,))
    return [("Drawings", words, tables), ("Drawings published otherwise", apart, published_tables)]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() else f"{value:.2f}" if abs(value) >= 1 else f"{value:.4g}"
    return f"{value:,}" if _is_number(value) else visible(str(value), 200)


def _groups(folder: Path) -> list[tuple[str, list[Sample]]]:
    """Best and worst by CLIP score, and some that nobody chose; the rows alone are in memory, not the pictures."""
    rows = [row for row in read_rows(folder / "samples.jsonl") if row.get("drawing")]
    scored = sorted((row for row in rows if _is_number(row.get("clip"))), key=lambda row: -row["clip"])
    by_hash = sorted(rows, key=lambda row: hashlib.sha256(str(row.get("id")).encode("utf-8", "replace")).digest())
    some = min(SHOWN, len(scored) // 2)
    chosen = [("Best by CLIP score", scored[:some]), ("Worst by CLIP score", scored[::-1][:some])]
    chosen.append(("Settled by a hash of their ids", by_hash[:SHOWN]))
    return [(heading, [_sample(folder, row) for row in group]) for heading, group in chosen if group]


def _sample(folder: Path, row: Mapping[str, Any]) -> Sample:
    clip = row.get("clip")
    return Sample(
        id=visible(str(row.get("id", "")), 100),
        instruction=visible(str(row.get("instruction") or ""), 300),
        caption=visible(str(row.get("caption") or ""), 300),
        clip=f"{clip:.1f}" if _is_number(clip) else "–",
        drawing=_uri(folder, row.get("drawing")),
        reference=_uri(folder, row.get("reference")),
    )


def _uri(folder: Path, name: Any) -> str:
    """A file that a row names, relative to its folder or absolute, as a picture of the page."""
    try:
        picture: Image.Image = Picture(path=folder / str(name)).open() if name else Image.new("RGB", (0, 0))
        return thumbnail(picture, 300) if name else ""
    except (UserError, ValueError):
        return ""
