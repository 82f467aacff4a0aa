"""What is kept of a sweep's trials once all have ended: everything, the best cell's weights, or the figures alone."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from vargpt_lightning.sweep.folder import Row, SweepFolder
from vargpt_lightning.sweep.table import by_aim, summarize


def tidy(folder: SweepFolder, rows: Sequence[Row]) -> list[str]:
    """Remove what the sweep's `keep` does not ask for; return the names of the trials that lost their weights.

    Weights that runs outside of the sweep share with a trial stay theirs: they are linked, not moved. Failed trials
    keep all, so that they can be tried again.
    """
    if folder.sweep.keep == "all":
        return []
    best = by_aim(summarize(rows, folder.sweep.measures), folder.sweep.measures[0])[:1]
    spared = {row.name for group in best for row in group.rows} if folder.sweep.keep == "best" else set()
    lost = []
    for row in rows:
        if row.state not in ("finished", "pruned") or row.name in spared:
            continue
        run = folder.run(row.name)
        weights = [*run.glob("stages/*/model.safetensors"), *run.glob("stages/*/last.ckpt")]
        for file in weights:
            file.unlink(missing_ok=True)
        shutil.rmtree(run / "cache", ignore_errors=True)
        if weights:
            lost.append(row.name)
    return lost
