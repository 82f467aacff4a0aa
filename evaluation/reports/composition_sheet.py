"""The first section of the report of a run on scenes: what it puts together that it was never shown together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from vargpt_lightning.data.scenes.shapes import COLOURS, SHAPES
from vargpt_lightning.evaluation.base.figures import rate_text
from vargpt_lightning.evaluation.composition.copies import NEAREST
from vargpt_lightning.evaluation.composition.figures import PARTS, SKILLS
from vargpt_lightning.evaluation.composition.training_pictures import TrainingPictures
from vargpt_lightning.evaluation.composition.verdicts import VERDICTS
from vargpt_lightning.evaluation.reports.report_pictures import Pictures, by_hash, encode
from vargpt_lightning.utils.files import read_jsonl

ROWS = {"count": "Counts", "pair": "Pairs"}
SHOWN = {"unseen": 16, "seen": 8}  # drawings in each of these rows
BESIDE = 12  # drawings beside their nearest training pictures
COLUMNS = ("unseen", "seen")
CEILING = ("real", "tokenizer")
Metrics = Mapping[str, Any]
Row = Mapping[str, Any]


def composition_sheet(metrics: Metrics, pictures: Pictures) -> dict[str, Any] | None:
    """Return what the section shows; None where the evaluation asked for no scenes."""
    found = metrics.get("composition")
    if not found:
        return None
    rows = by_hash(read_jsonl(pictures.folder / VERDICTS))
    training = TrainingPictures.load(pictures.folder)
    show = _shower(pictures)
    grid = _grid(rows, training, show)
    return {
        "grid": grid,
        "rows": [row for kind, title in ROWS.items() if (row := _row(kind, title, rows, show))],
        "groups": _groups(found),
        "copies": _copies(found, rows, training, pictures),
        "heldout": _heldout(grid, training),
    }


def _shower(pictures: Pictures) -> Callable[[Row], dict[str, Any]]:
    def show(row: Row) -> dict[str, Any]:
        uri = pictures.uri(pictures.folder / row["files"][0]) if row["files"] else None
        words = {key: row[key] for key in ("prompt", "right", "reason")}
        return words | {"uri": uri, "unseen": row["split"] == "unseen"}

    return show


# ------------------------------------------------------------------------------------------------------ drawings


def _grid(
    rows: Sequence[Row], training: TrainingPictures | None, show: Callable[[Row], dict[str, Any]]
) -> dict[str, Any] | None:
    """Shapes down, colours across, in two blocks; of several drawings of a cell the first by hash."""
    drawn: dict[str, Row] = {}
    for row in rows:
        if row["kind"] == "colour":
            drawn.setdefault(row["cell"], row)
    trained = set(training.cells) if training else set()
    known = drawn.keys() | trained
    shapes = [each.name for each in SHAPES if any(_cell(each.name, colour) in known for colour in COLOURS)]
    if not drawn:
        return None

    def tile(shape: str, colour: str) -> dict[str, Any]:
        cell = _cell(shape, colour)
        if cell in drawn:
            return {"asked": True, **show(drawn[cell])}
        return {"asked": False, "unseen": bool(trained) and cell not in trained, "prompt": f"{colour} {shape}"}

    by_shape = {shape: [tile(shape, colour) for colour in COLOURS] for shape in shapes}
    lines = [{"shape": shape, "tiles": those} for shape, those in by_shape.items()]
    half = (len(lines) + 1) // 2
    tiles = [each for those in by_shape.values() for each in those]
    return {
        "blocks": [block for block in (lines[:half], lines[half:]) if block],
        "colours": [{"name": name, "tone": tones[0]} for name, tones in COLOURS.items()],
        "cells": len(tiles),
        "unseen": sum(each["unseen"] for each in tiles),
        "tally": {
            name: {"right": sum(each["right"] for each in those), "n": len(those)}
            for name, those in (
                (name, [each for each in tiles if each["asked"] and each["unseen"] == (name == "unseen")])
                for name in COLUMNS
            )
        },
    }


def _cell(shape: str, colour: str) -> str:
    return f"{shape}, {colour}"


def _row(kind: str, title: str, rows: Sequence[Row], show: Callable[[Row], dict[str, Any]]) -> dict[str, Any] | None:
    """Some drawings of a kind, those of unseen combinations first."""
    those = {split: [row for row in rows if (row["kind"], row["split"]) == (kind, split)] for split in SHOWN}
    shown = [show(row) for split, many in SHOWN.items() for row in those[split][:many]]
    return {"title": title, "items": shown, "of": sum(map(len, those.values()))} if shown else None


def _copies(
    found: Metrics, rows: Iterable[Row], training: TrainingPictures | None, pictures: Pictures
) -> dict[str, Any] | None:
    """What the nearest training pictures show, and some drawings of unseen combinations beside theirs."""
    if "unseen" not in found.get("copies", {}) or training is None:
        return None
    prompts = {row["id"]: row for row in rows}
    pairs: list[dict[str, Any]] = []
    for near in by_hash(row for row in read_jsonl(pictures.folder / NEAREST) if row["split"] == "unseen"):
        row = prompts.get(near["id"])
        uri = pictures.uri(pictures.folder / row["files"][0]) if row else None
        if row and uri and len(pairs) < BESIDE:
            known = {"near": encode(training.picture(near["place"])), "name": near["nearest_name"]}
            pairs.append({"uri": uri, "prompt": row["prompt"], **known, "same": near["nearest_cell"] == near["cell"]})
    return {"figures": dict.fromkeys(COLUMNS) | found["copies"], "pairs": pairs}


def _heldout(grid: dict[str, Any] | None, training: TrainingPictures | None) -> str:
    """How many cells of the grid were held out, in words; only where the training's cells are known."""
    return f" ({grid['unseen']} of {grid['cells']})" if grid and training else ""


# --------------------------------------------------------------------------------------------------------- table


def _groups(found: Metrics) -> list[dict[str, Any]]:
    """The table's groups of rows, each row with its rates: unseen, seen, the judge's on real pictures and on copies."""
    rates = [found.get(split, {}) for split in COLUMNS]
    rates += [found.get("ceiling", {}).get(of, {}) for of in CEILING]
    judge = [{}, {}, *(found.get("judge", {}).get(of, {}) for of in CEILING)]
    names = {key: skill.title for key, skill in PARTS.items()} | {"geneval": "mean of the categories"}
    groups = [
        ("Put together, all of it right", _lines({key: skill.title for key, skill in SKILLS.items()}, rates)),
        ("GenEval's categories", _lines(names, rates)),
        ("What the judge reads", _lines({key: key for key in ("colour", "shape", "count", "relation")}, judge)),
    ]
    asked = found.get("agreement", {})
    words = {"colour": "colour", "count": "count", "pair": "what stands where", "all": "all"}
    agreement = [
        {"name": name, "wide": rate_text(asked[key]), "total": key == "all"}
        for key, name in words.items()
        if key in asked
    ]
    groups.append(("Asked about its own drawing, it says what was asked for", agreement))
    return [{"title": title, "lines": lines} for title, lines in groups if lines]


def _lines(names: Mapping[str, str], columns: Sequence[Metrics]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "cells": [rate_text(column.get(key)) for column in columns],
            "total": key == "geneval",
            "wide": None,
        }
        for key, name in names.items()
        if any(key in column for column in columns)
    ]
