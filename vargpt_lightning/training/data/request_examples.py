"""Requests that a run can draw, for who does not know what to ask: its own training requests, and their corpora."""

from __future__ import annotations

import logging
from pathlib import Path

from vargpt_lightning.experiment.parser import load_experiment
from vargpt_lightning.runs.folder import RunFolder
from vargpt_lightning.training.data.samples import one_for_each_picture, request_of
from vargpt_lightning.utils.errors import UserError, hint

logger = logging.getLogger(__name__)


def example_requests(folder: RunFolder, count: int = 6) -> list[str]:
    """Return some of the requests that a run was trained to draw, spread over its pictures.

    Without the data, which may be on another machine, there are none.
    """
    try:
        data = load_experiment(["--config", str(folder.path / "config.yaml")]).data
        records = one_for_each_picture(data.open("train").values(), count)
    except Exception as error:  # whatever is wrong with the data, the model answers without them
        logger.info("%s: no example requests (%s)", folder.path, error)
        return []
    return [request_of(record) for record in records]


def corpus_folder(folder: RunFolder, name: str, split: str = "train") -> Path:
    """Return where a corpus of a run's data is packed; it is prepared if it is not there.

    Raises:
        UserError: the run's data have no such corpus, or none of this split.
    """
    data = load_experiment(["--config", str(folder.path / "config.yaml")]).data
    sources = data.open(split)
    if name not in sources:
        raise UserError(f"{folder.path}: no corpus {name!r} in the split {split!r}; {hint(name, sources)}")
    return sources[name].folder
