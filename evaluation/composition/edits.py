"""Edits of scenes: what a picture shows after "Make it red." - the colour that was asked for, and the shape kept.

The judge is that of drawings, and does not know the request.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vargpt_lightning.data.scenes.edits import EDIT
from vargpt_lightning.data.scenes.scene import Scene, scene_of
from vargpt_lightning.data.shards.records import SEEN, Record
from vargpt_lightning.evaluation.base.files import open_picture
from vargpt_lightning.evaluation.base.protocols import Edit
from vargpt_lightning.evaluation.composition.figures import rate
from vargpt_lightning.evaluation.composition.reading import NameShapes, Reading, read_pictures
from vargpt_lightning.evaluation.composition.shape_names import shape_names
from vargpt_lightning.evaluation.composition.verdicts import EDIT_VERDICTS
from vargpt_lightning.utils.files import write_jsonl

Row = Mapping[str, Any]
SPLITS = {"val": "seen", "test": "unseen"}


def is_edit(record: Record) -> bool:
    """Whether a record asks to recolour a scene's picture."""
    return EDIT in record.meta and len(record.pictures(SEEN)) == 1


def edit_from_record(record: Record, split: str, seed: int) -> Edit:
    """Return what is asked by a record: its picture, its words, and what the changed picture has to show."""
    (shown,) = record.pictures(SEEN)
    asked = next(turn.text for turn in record.turns if turn.role == "user")
    picture = base64.b64encode(shown.data or b"").decode()
    return Edit(record.id, asked, seed, picture, split, dict(record.meta[EDIT]))


def edit_figures(out: Path, rows: Sequence[Row], name_shapes: NameShapes | None = None) -> dict[str, Any]:
    """Judge the changed pictures of an evaluation's folder, and write `edit_verdicts.jsonl`.

    Args:
        out: the evaluation's folder.
        rows: of edits.jsonl: `split`, `prompt`, `scene` (what was asked for) and `files`; one without a picture is
            wrong.

    Returns:
        "seen" and "unseen": how often the "colour" is the one asked for, the "shape" is kept, and "both", with the
        number of things unchanged.
    """
    drawn = [row for row in rows if row.get("files")]
    names = name_shapes or shape_names()
    read = dict(
        zip(
            (row["id"] for row in drawn),
            read_pictures([open_picture(out, row) for row in drawn], names),
            strict=True,
        )
    )
    verdicts = [_verdict(row, read.get(row["id"], Reading(()))) for row in rows]
    write_jsonl(out / EDIT_VERDICTS, verdicts)
    return {
        name: {
            part: rate([each[part] for row, each in zip(rows, verdicts, strict=True) if row["split"] == split])
            for part in ("colour", "shape", "both")
        }
        for split, name in SPLITS.items()
        if any(row["split"] == split for row in rows)
    }


def _verdict(row: Row, reading: Reading) -> dict[str, Any]:
    scene: Scene = scene_of(row["scene"])
    (wanted,), things = scene.things, list(reading.things)
    alone = things[0] if len(things) == 1 else None
    colour = alone is not None and alone.colour == wanted.colour
    shape = alone is not None and alone.shape == wanted.shape
    seen = [{"shape": thing.shape, "colour": thing.colour} for thing in things]
    about = {"id": row["id"], "split": SPLITS.get(row["split"], row["split"]), "prompt": row["prompt"]}
    return {
        **about,
        "cell": scene.cell,
        "colour": colour,
        "shape": shape,
        "both": colour and shape,
        "things": seen,
        "before": row.get("before", ""),
        "files": list(row.get("files", [])),
    }
