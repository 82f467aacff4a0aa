"""Pairs of answers for the tiny experiment: pictures of which the right one was chosen, and words."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from tests.tiny import COLOURS, SHAPES, png
from vargpt_lightning.data.shards.format import write_source
from vargpt_lightning.data.shards.records import DRAWN, SEEN, PicturePart, Record, TextPart, Turn


def pairs() -> dict[str, list[Record]]:
    """Twelve requests to draw with a right and a wrong picture, and twelve questions with a right and a wrong word."""
    found: dict[str, list[Record]] = {"pairs": [], "words": []}
    for shape in SHAPES:
        for place, colour in enumerate(COLOURS):
            name, wrong = f"{colour}-{shape}", f"{COLOURS[place - 1]}-{shape}"
            pictures = [PicturePart(DRAWN, each, png(shape, each.split("-")[0])) for each in (name, wrong)]
            drawn = [Turn("assistant", (TextPart("Here:"), picture)) for picture in pictures]
            said = [Turn("assistant", (TextPart(each),)) for each in (colour, COLOURS[place - 1])]
            asked = Turn("user", (TextPart(f"Draw a {name}."),))
            question = Turn("user", (PicturePart(SEEN, name, pictures[0].data), TextPart("Which colour?")))
            found["pairs"].append(Record(f"{name}-pair", "tiny", (asked, drawn[0]), rejected=drawn[1]))
            found["words"].append(Record(f"{name}-word", "tiny", (question, said[0]), rejected=said[1]))
    return found


def write_pairs(folder: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Pack the pairs beside the tiny corpora; return the arguments of `Packed` with them."""
    arguments = copy.deepcopy(arguments)
    for name, records in pairs().items():
        for split, members in (("train", records[:9]), ("val", records[9:])):
            write_source(members, folder / f"{split}-{name}", split=split)
            arguments[split][name] = str(folder / f"{split}-{name}")
    return arguments
