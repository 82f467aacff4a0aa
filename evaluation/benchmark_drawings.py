"""What the report shows of drawings: their figures, and samples beside their references. Imports no torch.

Reads OUT/images.json and OUT/samples.jsonl (id, instruction, caption, drawing, reference, clip).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from vargpt_lightning.errors import UserError
from vargpt_lightning.evaluation.benchmark_examples import thumbnail, visible
from vargpt_lightning.evaluation.benchmark_outputs import read_rows
from vargpt_lightning.evaluation.benchmarks.layouts_rows import Picture
from vargpt_lightning.results import read_json

SHOWN = 12  # samples of each kind: best, worst, by hash
SPREAD = ("std", "error", "standard_error", "stderr", "sd")


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
    """A system's drawings: rows of (metric, value, remark), marks, settings, and groups of (heading, samples)."""

    system: str
    count: str
    metrics: Sequence[tuple[str, str, str]]
    marks: Sequence[str]
    settings: Mapping[str, Any]
    groups: Sequence[tuple[str, Sequence[Sample]]]


def read_drawn(folders: Sequence[Path]) -> list[Drawn]:
    """The drawings of every folder that has an images.json.

    Raises:
        UserError: an images.json that cannot be understood.
    """
    return [_drawn(folder) for folder in folders if (folder / "images.json").is_file()]


def _drawn(folder: Path) -> Drawn:
    result = read_json(folder / "images.json")
    if not isinstance(result, dict) or not isinstance(result.get("metrics"), dict):
        raise UserError(f"{folder / 'images.json'} is not a result of drawings: expected an object with metrics")
    settings = result.get("settings") if isinstance(result.get("settings"), dict) else {}
    marks = result.get("marks") or []
    marks = list(marks.values()) if isinstance(marks, dict) else [marks] if isinstance(marks, str) else list(marks)
    count = result.get("n")
    return Drawn(
        system=str(result.get("model") or (settings or {}).get("model") or folder.name),
        count=f"{count:,}" if isinstance(count, int) else "",
        metrics=list(metric_rows(result["metrics"])),
        marks=[visible(str(mark), 300) for mark in marks],
        settings={str(key): value for key, value in (settings or {}).items()},
        groups=_groups(folder),
    )


def metric_rows(metrics: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str, str]]:
    """(name, value, remark) of each metric, whether it is a number or an object with a value and more."""
    for name, value in metrics.items():
        title = f"{before}{name}".replace("_", " ")
        if not isinstance(value, Mapping):
            yield title, _text(value), ""
            continue
        lead = next((key for key in ("value", "mean", "score", name) if _is_number(value.get(key))), None)
        if lead is None:
            yield from metric_rows(value, f"{title} ")
            continue
        spread = next((f" ± {_text(value[key])}" for key in SPREAD if _is_number(value.get(key))), "")
        if _is_number(value.get("low")) and _is_number(value.get("high")):
            spread += f" [{_text(value['low'])}–{_text(value['high'])}]"
        told = {lead, "low", "high", *SPREAD}
        more = [f"{key.replace('_', ' ')} {_text(item)}" for key, item in value.items() if key not in told]
        yield title, _text(value[lead]) + spread, visible(", ".join(more), 400)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) >= 1 else f"{value:.4g}"
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
