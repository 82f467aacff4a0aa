"""Result folders as scoring writes them, small, for tests of what is made of them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from PIL import Image

from vargpt_lightning.utils.files import write_json, write_jsonl

HEADLINES = {"mme": ("perception", 1.0)}


def write_result(
    out: Path,
    benchmark: str,
    value: float | None,
    protocol: str = "lmms_eval",
    rows: list[dict[str, Any]] | None = None,
    **more: Any,
) -> None:
    """A result file, and a scores file where there are rows; `figures` adds to the figures, others to the result."""
    headline, scale = HEADLINES.get(benchmark, ("accuracy", 100.0))
    width = 30 if benchmark == "mme" else 0.02
    bounds = {"low": None, "high": None} if value is None else {"low": value - width, "high": value + width}
    figures = {headline: value, "n": 400, "empty": 0, "unparsed": 0, "guessed": 0, "judged": 0, "truncated": 0}
    figures |= bounds | more.pop("figures", {})
    result = {"benchmark": benchmark, "title": benchmark.upper(), "protocol": protocol, "style": "llava"}
    result |= {"headline": headline, "scale": scale, "figures": figures, "model": "mine", "digest": "d1", "limit": None}
    result |= {"settings": {"precision": "bf16"}, "max_new_tokens": 16, "total": 400, "missing": 0, "skipped": 0}
    result |= {"partial": False, "versions": {"torch": "9"}, "created": "2026-01-02T03:04:05+00:00"}
    write_json(out / benchmark / f"result.{protocol}.json", result | more)
    if rows is not None:
        write_jsonl(out / benchmark / f"scores.{protocol}.jsonl", rows)


def scored(id_: str, value: float, output: str = "yes", status: str = "ok", **more: Any) -> dict[str, Any]:
    """A row of a scores file."""
    row = {"id": id_, "value": value, "parsed": None if status in ("empty", "unparsed") else output, "status": status}
    return (
        row
        | {"output": output, "finish": "stop", "prompt": f"Question {id_}?", "answer": "yes", "category": "c"}
        | more
    )


def png(colour: Any = "red", size: tuple[int, int] = (8, 8)) -> bytes:
    """An encoded picture of one colour."""
    content = io.BytesIO()
    Image.new("RGB", size, colour).save(content, "PNG")
    return content.getvalue()
