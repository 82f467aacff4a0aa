"""The pictures that a run was trained to draw, kept small beside its evaluation, and which of them a drawing is like.

Shapes: N training pictures, M drawings, S pixels of a side.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from vargpt_lightning.data.images.picture_files import PictureError, decode_picture
from vargpt_lightning.data.shards.records import DRAWN, Record
from vargpt_lightning.evaluation.base.files import rgb, save_picture
from vargpt_lightning.utils.files import read_json, write_json

SIDE = 32
MOST = 8192  # pictures that are kept; of more, those with the first hashes
COLUMNS = 64  # of the mosaic
MOSAIC, TABLE = "training_pictures.png", "training_pictures.json"
_CHUNK = 2048  # training pictures compared at once


@dataclass(frozen=True)
class TrainingPictures:
    """Small training pictures (N, S, S, 3), each with its cell ("" for one that is no scene) and its name.

    `total` is how many there were before `MOST` was applied.
    """

    pixels_NSS3: npt.NDArray[np.uint8]
    cells: tuple[str, ...]
    names: tuple[str, ...]
    total: int

    def picture(self, place: int) -> Image.Image:
        """Return one of them."""
        return Image.fromarray(self.pixels_NSS3[place])

    def nearest(self, drawings: Sequence[Image.Image]) -> list[tuple[int, float]]:
        """Return for each drawing the place of the nearest picture and its distance.

        The distance is the root of the mean squared difference of the small pictures' pixels, from 0 to 1.
        """
        if not drawings:
            return []
        drawn_MD = _flat(np.stack([_small(picture) for picture in drawings]))
        best_M = np.full(len(drawn_MD), np.inf)
        place_M = np.zeros(len(drawn_MD), int)
        for start in range(0, len(self.pixels_NSS3), _CHUNK):
            known_ND = _flat(self.pixels_NSS3[start : start + _CHUNK])
            square_MN = (known_ND**2).sum(axis=1) - 2 * drawn_MD @ known_ND.T + (drawn_MD**2).sum(axis=1)[:, None]
            near_M = square_MN.argmin(axis=1)
            square_M = square_MN[np.arange(len(near_M)), near_M]
            place_M = np.where(square_M < best_M, start + near_M, place_M)
            best_M = np.minimum(square_M, best_M)
        distance_M = np.sqrt(np.maximum(best_M, 0) / drawn_MD.shape[1])
        return list(zip(place_M.tolist(), distance_M.tolist(), strict=True))

    def save(self, folder: Path) -> None:
        """Write the mosaic and the table, unless they are there."""
        table: dict[str, Any] = {"version": 1, "side": SIDE, "columns": COLUMNS, "total": self.total}
        table |= {"hash": hashlib.sha256(self.pixels_NSS3.tobytes()).hexdigest()[:32]}
        table |= {"cells": list(self.cells), "names": list(self.names)}
        if (folder / MOSAIC).is_file() and (folder / TABLE).is_file() and read_json(folder / TABLE) == table:
            return
        rows = math.ceil(len(self.cells) / COLUMNS)
        mosaic_KSS3 = np.full((rows * COLUMNS, SIDE, SIDE, 3), 255, np.uint8)
        mosaic_KSS3[: len(self.cells)] = self.pixels_NSS3
        tiles = mosaic_KSS3.reshape(rows, COLUMNS, SIDE, SIDE, 3).swapaxes(1, 2)
        save_picture(folder / MOSAIC, Image.fromarray(tiles.reshape(rows * SIDE, COLUMNS * SIDE, 3)))
        write_json(folder / TABLE, table)

    @classmethod
    def load(cls, folder: Path) -> TrainingPictures | None:
        """Return what `save` wrote into a folder; None where it is not there, or not whole."""
        if not (folder / MOSAIC).is_file() or not (folder / TABLE).is_file():
            return None
        table = read_json(folder / TABLE)
        cells, names = tuple(table["cells"]), tuple(table["names"])
        side, columns = int(table["side"]), int(table["columns"])
        rows = math.ceil(len(cells) / columns)
        with Image.open(folder / MOSAIC) as mosaic:
            if mosaic.size != (columns * side, rows * side):
                return None
            tiles = np.asarray(rgb(mosaic)).reshape(rows, side, columns, side, 3).swapaxes(1, 2)
        return cls(tiles.reshape(-1, side, side, 3)[: len(cells)].copy(), cells, names, int(table["total"]))


def training_pictures(records: Iterable[Record]) -> TrainingPictures | None:
    """Return the pictures that training records draw, each once; None where no scene is among them.

    Pictures that cannot be decoded are left out.
    """
    found = {part.key: (part, record.meta) for record in records for part in record.pictures(DRAWN)}
    if not any(meta.get("scene") for _, meta in found.values()):
        return None
    if len(found) > MOST:
        chosen = set(sorted(found, key=lambda key: hashlib.sha256(key.encode()).digest())[:MOST])
    else:
        chosen = set(found)
    pixels, cells, names = [], [], []
    for key, (part, meta) in found.items():
        if key in chosen:
            try:
                pixels.append(_small(decode_picture(part.data, part.key)))
            except PictureError:
                continue
            cells.append(str(meta.get("cell", "")))
            names.append(str(meta.get("name", "")))
    return TrainingPictures(np.stack(pixels), tuple(cells), tuple(names), len(found)) if pixels else None


def _small(picture: Image.Image) -> npt.NDArray[np.uint8]:
    return np.asarray(rgb(picture).resize((SIDE, SIDE), Image.Resampling.BOX))


def _flat(pixels_NSS3: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return pixels_NSS3.reshape(len(pixels_NSS3), -1).astype(np.float32) / np.float32(255)
