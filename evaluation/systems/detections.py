"""Detections as a file: what any detector found in pictures. Imports no torch.

    {"id": "00000/samples/0000", "detections": [{"label": "cat", "score": 0.93, "box": [4, 8, 90, 77]}]}

A line for each picture, by the ids of its benchmark; `box` is left, top, right, bottom in pixels, `colour` what a
classifier says of the object.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from vargpt_lightning.evaluation.base.prompt_benchmark import Detection, as_detection
from vargpt_lightning.evaluation.formats.layouts import read_jsonl
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import file_sha256


class DetectionFile:
    """A file of detections by picture; implements `Detector`.

    Raises:
        UserError: the file is missing, a row has another form, or an id comes twice.
    """

    needs_pictures = False
    batch_size = 1024

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.stem
        self._found: dict[str, list[Detection]] = {}
        for place, row in enumerate(read_jsonl(path, ("id", "detections")), 1):
            id_, where = str(row["id"]), f"{path}, row {place}"
            if id_ in self._found:
                raise UserError(f"{where}: the id {id_!r} comes twice; expected one row a picture")
            if not isinstance(row["detections"], list):
                raise UserError(f"{where}: detections are {str(row['detections'])[:60]!r}; expected a list")
            self._found[id_] = [as_detection(each, where) for each in row["detections"]]

    @cached_property
    def digest(self) -> str:
        """A hash of the file."""
        return file_sha256(self.path)[:16]

    @property
    def settings(self) -> dict[str, Any]:
        """What detections depend on besides the file."""
        return {"adapter": "detections"}

    def detect(self, ids: Sequence[str], pictures: Sequence[Image.Image]) -> list[list[Detection]]:
        """What the file has of these pictures. Raises UserError for one that it lacks."""
        if lost := [id_ for id_ in ids if id_ not in self._found]:
            raise UserError(f"{self.path}: has no detections of {lost[0]!r}; expected a row for each picture")
        return [self._found[id_] for id_ in ids]
