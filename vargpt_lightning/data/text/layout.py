"""How the texts and pictures of a turn stand beside each other: what all formats of conversations have in common."""

from __future__ import annotations

from collections.abc import Iterator

from vargpt_lightning.data.shards.records import Part, PicturePart, Turn


def parts_with_gaps(turn: Turn) -> Iterator[tuple[str, Part]]:
    """Yield a turn's parts, each with the white space between it and the part before.

    A seen picture has a line of its own, as LLaVA-1.5 has it; a drawn one stands in the text.
    """
    answer = turn.role == "assistant"
    for number, part in enumerate(turn.parts):
        if isinstance(part, PicturePart):
            yield "\n" if number > 0 and not answer else "", part
        else:
            after_picture = number > 0 and isinstance(turn.parts[number - 1], PicturePart)
            yield (" " if answer else "\n") if after_picture else "", part
