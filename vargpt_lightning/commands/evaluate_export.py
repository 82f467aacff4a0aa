"""`vargpt evaluate export`: a benchmark's questions, ids and pictures for a system that nothing here can ask.

OUT/<benchmark>/questions.jsonl   id, benchmark, prompt, images (files below OUT/<benchmark>), max_new_tokens
OUT/<benchmark>/images/           each picture once

What the system says goes into a file of `id` and `output`, a line each; `vargpt score` takes it. Imports no torch.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from vargpt_lightning.commands.options import add_data_options
from vargpt_lightning.evaluation.harness.data import chosen_modules, find_data
from vargpt_lightning.utils.errors import UserError

QUESTIONS, IMAGES = "questions.jsonl", "images"
EXAMPLE = """examples:
  vargpt evaluate export --benchmarks mme,pope --data data --out for-others
  vargpt score answers.jsonl --benchmark mme --data data        # with the same --limit and --style, if any
"""


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    result = argparse.ArgumentParser(
        prog="vargpt evaluate export",
        description="Write questions, ids and pictures of benchmarks for another system.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("--benchmarks", required=True, metavar="NAMES", help="such as mmbench,pope, or all")
    add_data_options(result)
    result.add_argument("--out", type=Path, required=True, metavar="DIR", help="where questions and pictures go")
    result.add_argument("--limit", type=int, metavar="N", help="the N questions that evaluate --limit asks")
    result.add_argument("--style", default="llava", metavar="NAME", help="of the prompts: llava (default), plain, ...")
    return result


def main(argv: list[str]) -> int:
    """Write them, and say how many there are."""
    arguments = parser().parse_args(argv)
    modules = chosen_modules(arguments.benchmarks, arguments.data, arguments.hub_owner)
    data = find_data(modules, arguments.data, arguments.hub_owner)
    for module in modules:
        folder = arguments.out / module.NAME
        if (folder / QUESTIONS).exists():
            raise UserError(f"{folder / QUESTIONS} is there already; expected another --out")
        asked, left_out = export(module, data[module.NAME], folder, arguments.limit, arguments.style)
        lost = f", {left_out} left out, whose pictures do not decode" if left_out else ""
        print(f"{module.TITLE}: {asked} questions{lost}: {folder / QUESTIONS}", flush=True)
    return 0


def export(
    module: ModuleType, data: Path, folder: Path, limit: int | None = None, style: str = "llava"
) -> tuple[int, int]:
    """Write a benchmark's questions; return how many were written, and how many left out.

    Raises:
        UserError: the data are of another benchmark, or the prompts have no such style.
    """
    from vargpt_lightning.evaluation.harness.select import Asked, choose
    from vargpt_lightning.utils.files import write_jsonl

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
    from vargpt_lightning.evaluation.base.files import save_picture

    if picture is None:
        raise UserError("the question has no picture")
    name = f"{IMAGES}/{hashlib.sha256(picture.bytes()).hexdigest()[:32]}.png"
    if not (folder / name).is_file():
        save_picture(folder / name, picture.open())
    return name
