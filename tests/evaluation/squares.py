"""A benchmark of coloured squares, two questions a square, and a system that answers it: to test the runner with.

Runs as a program too: `python -m tests.evaluation.squares DATA OUT [KEY=VALUE ...]` asks it in a process of its own,
which a test can kill.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from PIL import Image

from vargpt_lightning.evaluation.base.benchmark import Record, Score, counts, mean_interval
from vargpt_lightning.evaluation.base.protocols import AnswerRequest, Reply
from vargpt_lightning.evaluation.formats.layouts import Picture, Rows, read_parquet
from vargpt_lightning.utils.errors import UserError

COLOURS = ("red", "green", "blue")
NAME, TITLE, HEADLINE, SCALE, MAX_NEW_TOKENS, HUB = "squares", "Squares", "accuracy", 100, 4, None


def load(path: str | Path, pictures: bool = True) -> Rows:
    if not (Path(path) / "squares.parquet").is_file():
        raise UserError(f"{path}: expected squares.parquet")
    return read_parquet([Path(path) / "squares.parquet"], pictures=pictures, required=("number", "colour", "question"))


def record_id(record: Record) -> str:
    return f"{record['number']}/{record['question']}"


def group(record: Record) -> str:
    return str(record["number"])


def pictures(record: Record) -> list[Picture]:
    return [record["image"]]


def prompt(record: Record, style: str = "llava") -> str:
    return f"{record['question']} ({style})"


def score(output: str, record: Record, protocol: str = "lmms_eval") -> Score:
    given = output.strip() if protocol == "lmms_eval" else output.strip().lower()
    return Score(float(given == record["colour"]), given, "ok" if given else "empty")


def aggregate(records: Sequence[Record], scores: Sequence[Score], protocol: str = "lmms_eval",
              allow_partial: bool = False) -> dict[str, float]:  # fmt: skip
    assert len(records) == len(scores) == sum(1 for _ in records)
    values = [each.value for each in scores]
    low, high = mean_interval(values)
    blue = [each.value for record, each in zip(records, scores, strict=True) if record["colour"] == "blue"]
    mean = {"accuracy": sum(values) / len(values), "accuracy/blue": sum(blue) / max(1, len(blue))}
    return mean | counts(scores) | {"low": low, "high": high}


def this() -> ModuleType:
    """The benchmark, under its own name also when this file runs as a program."""
    return sys.modules[__name__]


def png(colour: str, size: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(buffer, "PNG")
    return buffer.getvalue()


def write_data(folder: Path, squares: int = 10, broken: Sequence[int] = (), size: int = 8) -> Path:
    """Two questions about each square; pictures of `broken` squares are no pictures."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = []
    for number in range(squares):
        colour = COLOURS[number % 3]
        image = {"bytes": b"no picture" if number in broken else png(colour, size), "path": None}
        for question in ("Which colour?", "Which paint?"):
            rows.append({"number": number, "question": question, "colour": colour, "image": image})
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "squares.parquet", row_group_size=4)
    return folder


def colour_of(picture: Image.Image) -> str:
    pixel: Any = picture.getpixel((1, 1))
    return COLOURS[(0 if pixel[0] > 200 else 1 if pixel[1] > 100 else 2)]


@dataclass
class Painter:
    """Names the colour it sees, in capitals at the second question.

    Args:
        fits: batches larger than this run out of memory.
        pause: seconds a batch takes.
        log: a file that gets a line for each request, whichever process asks.
    """

    digest: str = "paint-1"
    settings: Mapping[str, Any] = field(default_factory=dict)
    name: str = "painter"
    fits: int = 10**9
    pause: float = 0.0
    log: Path | None = None
    batches: list[int] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def answer(self, requests: Sequence[AnswerRequest]) -> list[Reply | str]:
        self.batches.append(len(requests))
        if len(requests) > self.fits:
            raise RuntimeError("CUDA out of memory. Tried to allocate much")
        time.sleep(self.pause)
        self.asked += [request.id for request in requests]
        if self.log is not None:
            with open(self.log, "a") as file:
                file.writelines(f"{request.id}\n" for request in requests)
        return [self._reply(request) for request in requests]

    @staticmethod
    def _reply(request: AnswerRequest) -> Reply | str:
        colour = colour_of(request.pictures[0])
        return colour if "colour" in request.prompt else Reply(colour.upper(), finish="length")


def main(arguments: Sequence[str]) -> None:
    """Ask the squares in this process, one of several when the environment says so."""
    from vargpt_lightning.distributed.torchrun import shared_processes
    from vargpt_lightning.evaluation.harness.run import BenchmarkSettings, run_benchmark

    data, out, *rest = arguments
    given = dict(each.split("=", 1) for each in rest)
    log = given.pop("log", None)
    system = Painter(pause=float(given.pop("pause", 0)), log=Path(log) if log else None)
    settings = BenchmarkSettings(batch_size=int(given.pop("batch", 1)), protocols=("lmms_eval", "lenient"))
    with shared_processes() as processes:
        results = run_benchmark(system, this(), Path(data), Path(out), settings, processes=processes)
    if results:
        print(json.dumps(results["lmms_eval"]["figures"]), os.getpid(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
