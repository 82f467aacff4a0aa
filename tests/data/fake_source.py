"""A source for tests of packing: a file with a row a line, `ID KIND`, in parts of a few lines."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

from tests.data.conftest import asked, drawn, png
from vargpt_lightning.data.shards.records import Record, TextPart, Turn
from vargpt_lightning.data.sources.base import Part, Rejected, Row
from vargpt_lightning.utils.errors import UserError

NAME = "fake"
LINES = 7


def parts(path: Path, *, pictures: Path | None = None, seed: int = 0, size: int = 16) -> list[Part]:
    count = len(Path(path).read_text().splitlines())
    options = {"size": size, "seed": seed}
    return [
        Part(NAME, Path(path), start, min(start + LINES, count), start, options) for start in range(0, count, LINES)
    ]


def read_part(part: Part) -> Iterator[Row]:
    for line in Path(part.path).read_text().splitlines()[part.start : part.stop]:
        time.sleep(float(os.environ.get("FAKE_SECONDS", "0")))
        if line == "die seen" and multiprocessing.parent_process() is not None:
            os._exit(9)
        if line == "x broken":
            raise UserError(f"{part.path}: line 31 is broken")
        yield _row(*line.split(" ", 1), part.options["size"])


def read(path: Path, *, pictures: Path | None = None, seed: int = 0, size: int = 16) -> Iterator[Row]:
    for part in parts(path, seed=seed, size=size):
        yield from read_part(part)


def _row(name: str, kind: str, size: int) -> Row:
    colour = random.Random(name).choice(["red", "green", "blue"])
    if kind == "bad":
        return Rejected(name, NAME, f"{name}.jpg: no bytes")
    if kind == "surrogate":
        return Record(name, NAME, (Turn("assistant", (TextPart("half \ud800"),)),))
    if kind == "text":
        return Record(name, NAME, (Turn("assistant", (TextPart("words " * len(name)),)),))
    record = (asked if kind == "seen" else drawn)(name, data=png(colour, size))
    return Record(record.id, NAME, record.turns, record.meta)
