"""A page to look at pairs: chosen beside rejected, and prompts that made none."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vargpt_lightning.evaluation.data_reports.pages import render
from vargpt_lightning.evaluation.preferences.job import Judged, Scored
from vargpt_lightning.utils.files import write_bytes

PAGE = "index.html"
SHOWN, DROPPED = 120, 24
"""Pairs, and prompts without one, that the page shows: spread over all of them."""
WHY = {"tied": "all score alike", "unsure": "scores too near, or none good enough", "single": "one picture or none"}


def write_page(out: Path, judged: Sequence[Judged], counts: Mapping[str, Any], name: str) -> Path:
    """Write the page of what `make_pairs` returned for a run of this name, and return where it is."""
    pairs = [(each, pair) for each in judged for pair in each.pairs]
    dropped = [each for each in judged if not each.pairs]
    text = render(
        "data_prefer.html.j2",
        name=name,
        counts=counts,
        total=len(pairs),
        pairs=[_pair(out, each, pair) for each, pair in spread(pairs, SHOWN)],
        dropped=[
            {"prompt": each.prompt.instruction, "why": WHY[each.outcome]}
            | {"drawings": [_drawing(out, drawing) for drawing in each.drawings]}
            for each in spread(dropped, DROPPED)
        ],
        without=len(dropped),
    )
    write_bytes(out / PAGE, text.encode("utf-8", "replace"))
    return out / PAGE


def spread(items: Sequence[Any], most: int) -> list[Any]:
    """Return at most so many of some items, evenly over them."""
    if len(items) <= most:
        return list(items)
    return [items[place * len(items) // most] for place in range(most)]


def _pair(out: Path, each: Judged, pair: tuple[int, int]) -> dict[str, Any]:
    chosen, rejected = (_drawing(out, each.drawings[place]) for place in pair)
    return {"id": each.prompt.id, "prompt": each.prompt.instruction, "chosen": chosen, "rejected": rejected}


def _drawing(out: Path, drawing: Scored) -> dict[str, Any]:
    data = base64.b64encode((out / drawing.file).read_bytes()).decode()
    return {"uri": f"data:image/png;base64,{data}", "score": drawing.score, "answer": drawing.answer}
