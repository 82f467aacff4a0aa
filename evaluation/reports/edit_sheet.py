"""The report's section on edits of scenes: pictures before and after, and how often they are as asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vargpt_lightning.evaluation.base.figures import rate_text
from vargpt_lightning.evaluation.composition.verdicts import EDIT_VERDICTS
from vargpt_lightning.evaluation.reports.report_pictures import Pictures, by_hash
from vargpt_lightning.utils.files import read_jsonl

NAMES = {"colour": "the colour that was asked for", "shape": "the shape kept", "both": "both"}
SPLITS = {"unseen": "to held-out combinations", "seen": "to trained combinations"}
SHOWN = 12  # pictures of each split


def edit_sheet(metrics: Mapping[str, Any], pictures: Pictures) -> dict[str, Any] | None:
    """Return what the section shows; None where the evaluation changed no picture."""
    found = metrics.get("edits")
    if not found:
        return None
    rows = by_hash(read_jsonl(pictures.folder / EDIT_VERDICTS))
    shown = {split: [row for row in rows if row["split"] == split][:SHOWN] for split in SPLITS if split in found}
    return {
        "groups": [
            {"title": SPLITS[split], "items": [_item(row, pictures) for row in some], "of": found[split]["both"]["n"]}
            for split, some in shown.items()
        ],
        "heads": [SPLITS[split] for split in shown],
        "lines": [
            {"name": name, "cells": [rate_text(found[split][part]) for split in shown]} for part, name in NAMES.items()
        ],
    }


def _item(row: Mapping[str, Any], pictures: Pictures) -> dict[str, Any]:
    files = (row.get("before"), next(iter(row["files"]), None))
    before, after = (pictures.uri(pictures.folder / file) if file else None for file in files)
    seen = ", ".join(f"{thing['colour'] or '?'} {thing['shape'] or '?'}" for thing in row["things"]) or "nothing"
    return {"prompt": row["prompt"], "before": before, "after": after, "right": row["both"], "seen": seen}
