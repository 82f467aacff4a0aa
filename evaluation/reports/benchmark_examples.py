"""The examples that a report shows: which ones, and their pictures; only the chosen ones are decoded. No torch."""

from __future__ import annotations

import base64
import hashlib
import heapq
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from PIL import Image

from vargpt_lightning.evaluation.base.benchmark import Benchmark, Record
from vargpt_lightning.utils.errors import UserError

SIDE = 440  # pixels of the longer side in a page
LONGEST = 1200  # characters of an output that are shown
ODD = 4  # examples of each status that is no plain answer


@dataclass
class Example:
    """One question, what was said, and what it was worth; all texts are ready to be shown."""

    id: str
    raw_id: str
    verdict: str
    status: str
    value: float
    prompt: str
    output: str
    parsed: str
    key: str
    category: str = ""
    label: str = ""
    pictures: list[str] = field(default_factory=list)
    missing: str = ""


def choose_examples(rows: Iterable[Mapping[str, Any]], of_each: int = 12) -> list[Example]:
    """Some right, partly right and wrong answers and some of each odd status, by a hash of their ids, not by eye.

    Args:
        rows: those of a scores file, which may be long: one is in memory at a time.
        of_each: right and wrong examples; half as many that are partly right.
    """
    chosen: dict[tuple[str, str], list[tuple[int, int, Mapping[str, Any]]]] = {}
    for number, row in enumerate(rows):
        if "id" not in row or not isinstance(row.get("value"), (int, float)):
            continue
        status = str(row.get("status", "ok"))
        kind = verdict(row["value"]), status
        room = (of_each // 2 if kind[0] == "part" else of_each) if status == "ok" else ODD
        heap = chosen.setdefault(kind, [])
        digest = int.from_bytes(hashlib.sha256(str(row["id"]).encode("utf-8", "replace")).digest()[:8], "big")
        entry = (-digest, number, row)  # the heap's first is the one to go
        if len(heap) < room:
            heapq.heappush(heap, entry)
        elif room and entry[:2] > heap[0][:2]:
            heapq.heapreplace(heap, entry)
    # Turn by turn: the beginning of a page shows something of everything.
    kinds = sorted(chosen, key=lambda kind: (kind[1] != "ok", ["wrong", "right", "part"].index(kind[0]), kind[1]))
    columns = [sorted(chosen[kind], key=lambda entry: entry[:2], reverse=True) for kind in kinds]
    return [_example(entry[2]) for turn in zip_longest(*columns) for entry in turn if entry is not None]


def verdict(value: float) -> str:
    """ "right", "wrong", or "part" for what is in between."""
    return "right" if value >= 0.999 else "wrong" if value <= 0 else "part"


def _example(row: Mapping[str, Any]) -> Example:
    return Example(
        id=visible(str(row["id"]), 200),
        raw_id=str(row["id"]),
        verdict=verdict(row["value"]),
        status=str(row.get("status", "ok")),
        value=float(row["value"]),
        prompt=visible(str(row.get("prompt") or ""), 4000),
        output=visible(str(row.get("output") or "")),
        parsed=said(row.get("parsed")),
        key=said(row.get("answer")),
        label=visible(str(row.get("label") or ""), 200),
        category=said(row.get("category")) if row.get("category") not in (None, "") else "",
    )


def visible(text: str, most: int = LONGEST) -> str:
    """The beginning of a text, what cannot be seen or written shown as a sign, and how much is left out."""
    rest = len(text) - most
    shown = "".join(_sign(letter) for letter in text[:most])
    return shown + (f" … ({rest:,} more characters)" if rest > 0 else "")


def _sign(letter: str) -> str:
    code = ord(letter)
    if code < 32 and letter not in "\n\t":
        return chr(0x2400 + code)
    return "\ufffd" if 0xD800 <= code < 0xE000 or 0x7F <= code < 0xA0 or 0x202A <= code < 0x202F else letter


def said(value: Any) -> str:
    """A parsed answer or a key in words: ten annotators' answers with how many gave each."""
    if value is None:
        return "–"
    if isinstance(value, (list, tuple)) and value:
        words = [str(item.get("answer", item)) if isinstance(item, Mapping) else str(item) for item in value]
        counted = Counter(words).most_common()
        parts = [word if times == 1 else f"{word} × {times}" for word, times in counted]
        return visible(", ".join(parts), 300)
    if isinstance(value, (Mapping, list, tuple)):
        return visible(json.dumps(value, ensure_ascii=False, default=str), 300)
    return visible(str(value), 300) or "(empty)"


# ------------------------------------------------------------------------------------------------------- pictures


def add_pictures(examples: Sequence[Example], module: Benchmark, data: Path) -> None:
    """Fills in the examples' pictures from the benchmark's data; where one does not decode, the example says so.

    Args:
        examples: of any number of systems; several may be of one question.
        module: the benchmark, with `load`, `record_id` and `pictures`.
        data: what it loads.

    Raises:
        UserError: the data cannot be loaded, or hold none of these questions.
    """
    rows = module.load(data)
    wanted, places = {example.raw_id for example in examples}, []
    for place, record in enumerate(rows.without_pictures()):
        if str(module.record_id(record)) in wanted:
            places.append(place)
            if len(places) == len(wanted):
                break
    if wanted and not places:
        raise UserError(f"{data}: none of the questions that are shown are there; the outputs are of other data")
    by_id: dict[str, tuple[list[str], str]] = {}
    for record in rows.take(places):
        by_id[str(module.record_id(record))] = _pictures_of(module, record)
    for example in examples:
        example.pictures, example.missing = by_id.get(example.raw_id, ([], "the question is not in the data"))


def _pictures_of(module: Benchmark, record: Record) -> tuple[list[str], str]:
    uris: list[str] = []
    try:
        for picture in module.pictures(record):
            if picture is None:
                raise UserError("the question has no picture")
            uris.append(thumbnail(picture.open()))
    except UserError as error:
        return uris, visible(str(error), 300)
    return uris, ""


def thumbnail(picture: Image.Image, side: int = SIDE) -> str:
    """A picture, no larger than a page needs it, as a data URI."""
    small = picture.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    small.save(content, "JPEG", quality=84, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
