"""Are drawings copies? Each beside the training picture that it is nearest to, and whether this one shows its cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vargpt_lightning.evaluation.base.files import open_picture
from vargpt_lightning.evaluation.composition.figures import rate
from vargpt_lightning.evaluation.composition.training_pictures import TrainingPictures
from vargpt_lightning.utils.files import write_jsonl

NEAREST = "nearest_training.jsonl"


def copies(out: Path, rows: Sequence[Mapping[str, Any]], training: TrainingPictures) -> dict[str, Any]:
    """Compare drawings with the training pictures and write `nearest_training.jsonl`.

    Args:
        out: the evaluation's folder.
        rows: verdicts on drawings, with `id`, `split` ("seen" or "unseen"), `cell` and `files`.
        training: what the run was trained to draw.

    Returns:
        "training" and "of": how many pictures were compared with, of how many; for each split, in how many drawings
        the nearest one shows the same cell ("same_cell") and the median distance to it.
    """
    drawn = [row for row in rows if row["files"]]
    near = training.nearest([open_picture(out, row) for row in drawn])
    found = [
        {"id": row["id"], "split": row["split"], "cell": row["cell"], "place": place}
        | {"nearest_cell": training.cells[place], "nearest_name": training.names[place], "distance": distance}
        for row, (place, distance) in zip(drawn, near, strict=True)
    ]
    write_jsonl(out / NEAREST, found)
    figures: dict[str, Any] = {"training": len(training.cells), "of": training.total}
    for split in dict.fromkeys(row["split"] for row in found):
        those = [row for row in found if row["split"] == split]
        figures[split] = {
            "same_cell": rate([row["nearest_cell"] == row["cell"] for row in those]),
            "median_distance": float(np.median([row["distance"] for row in those])),
        }
    return figures
