"""Evaluations as commands write them, small: runs' questions and drawings, and benchmarks' scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from tests.evaluation.results_made import scored, write_result
from vargpt_lightning.evaluation.base.files import save_picture
from vargpt_lightning.utils.files import write_json, write_jsonl

SPLITS = ("train", "val", "test")


def write_evaluation(
    folder: Path, right: Sequence[bool], ranks: Sequence[int] = (), seed: int = 0, **more: Any
) -> Path:
    """A run with a question a value (two a picture), and a drawing a rank; `more` changes the rows of questions."""
    out = folder / "evaluation"
    questions = [
        {"id": f"q{n}", "kind": "name" if n % 2 else "colour", "split": SPLITS[n % 3], "prompt": f"What is {n}?",
         "picture": f"p{n // 2}", "expected": "Red", "answer": "Red" if yes else "Blue", "drew": False} | more
        for n, yes in enumerate(right)
    ]  # fmt: skip
    drawings = [
        {"id": f"d{n}", "split": "train", "prompt": f"Draw {n}.", "seed": seed + n, "picture": f"p{n}", "text": "Here:",
         "drew": True, "files": [f"drawings/d{n}.png"]}
        for n, _ in enumerate(ranks)
    ]  # fmt: skip
    pictures = [{"id": f"p{n}", "files": [f"real/p{n}.png"]} for n in range((len(right) + 1) // 2)]
    for row, colour in [*((row, "red") for row in pictures), *((row, "blue") for row in drawings)]:
        save_picture(out / row["files"][0], Image.new("RGB", (8, 8), colour))
    write_json(folder / "run.json", {"version": 1, "name": folder.name, "status": "finished"})
    write_json(out / "metrics.json", {"complete": True})
    write_jsonl(out / "answers.jsonl", questions)
    write_jsonl(out / "drawings.jsonl", drawings)
    write_jsonl(out / "drawing_scores.jsonl", [{"id": f"d{n}", "rank": rank} for n, rank in enumerate(ranks)])
    write_jsonl(out / "pictures.jsonl", pictures)
    return folder


def write_scores(out: Path, values: Sequence[float], benchmark: str = "pope", group: int = 0, **more: Any) -> Path:
    """A benchmark's scores, `group` questions to a group (0: none), and its result; `more` changes the result."""
    rows = [
        scored(f"q{n}", value, category="even" if n % 2 else "odd", **({"group": f"g{n // group}"} if group else {}))
        for n, value in enumerate(values)
    ]
    write_result(out, benchmark, 0.5, rows=rows, **more)
    return out
