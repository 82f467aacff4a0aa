"""A benchmark's questions, ids and pictures as files, for a system that nothing here can ask. Imports no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vargpt_lightning.evaluation.base.benchmark import Benchmark
from vargpt_lightning.evaluation.base.files import save_picture
from vargpt_lightning.evaluation.harness.select import Asked, choose
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import write_jsonl

QUESTIONS, IMAGES = "questions.jsonl", "images"


def export(
    module: Benchmark, data: Path, folder: Path, limit: int | None = None, style: str = "llava"
) -> tuple[int, int]:
    """Write a benchmark's questions; return how many were written, and how many left out.

    Raises:
        UserError: the data are of another benchmark, or the prompts have no such style.
    """
    rows = module.load(data)
    asked = Asked(module.NAME, style=style, limit=limit, source=str(rows.source), data=str(data))
    choice = choose(module, rows.without_pictures(), asked)
    lost: list[str] = []

    def written() -> Iterator[dict[str, Any]]:
        for record in rows.take(choice.places[id_] for id_ in choice.keys):
            id_ = str(module.record_id(record))
            try:
                images = [_kept(picture, folder) for picture in module.pictures(record)]
            except UserError:
                lost.append(id_)
                continue
            question = {"id": id_, "benchmark": module.NAME, "prompt": module.prompt(record, style), "images": images}
            yield question | {"max_new_tokens": module.MAX_NEW_TOKENS}

    write_jsonl(folder / QUESTIONS, written())
    return len(choice.keys) - len(lost), len(lost)


def _kept(picture: Any, folder: Path) -> str:
    """Write a picture as systems here see it, once, and return its place below the benchmark's folder."""
    if picture is None:
        raise UserError("the question has no picture")
    name = f"{IMAGES}/{hashlib.sha256(picture.bytes()).hexdigest()[:32]}.png"
    if not (folder / name).is_file():
        save_picture(folder / name, picture.open())
    return name
