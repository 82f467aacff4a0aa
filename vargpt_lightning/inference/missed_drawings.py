"""Answers that should have had a drawing: said to whoever asked, as long as training does not mend them.

A model that was trained on one drawing a conversation often answers the second request with the words that stand before
a drawing, and ends there.
"""

from __future__ import annotations

import re

from vargpt_lightning.data.shards.records import DRAWN, SEEN, PicturePart, TextPart, Turn
from vargpt_lightning.inference.assistant import Conversation
from vargpt_lightning.models.generation.answers import Answer

MISSED = (
    "Nothing was drawn: after a drawing this model often answers the next request with words alone. "
    "In a new conversation it draws."
)
_ASKS = re.compile(
    r"\b(draw|paint|sketch|illustrate|render|generate|(make|create|show|give|need|want|like)\b.*\b(image|picture|photo|"
    r"drawing|painting|sketch)|would like to see|show me)\b",
    re.IGNORECASE | re.DOTALL,
)


def missed_drawing(asked: Conversation, answer: Answer) -> bool:
    """Whether words alone answer a request to draw, in a conversation in which the model has drawn before.

    It counts as one where it is worded like one and shows no picture, or where it is answered with the words that stood
    before an earlier drawing, or the first of them.
    """
    if answer.pictures or answer.finished not in ("end", "length"):
        return False
    openings = [opening for turn in asked.turns if (opening := _before_drawing(turn)) is not None]
    turn = asked.turns[-1]
    if not openings or any(isinstance(part, PicturePart) and part.use == SEEN for part in turn.parts):
        return False
    said = answer.text
    return bool(_ASKS.search(turn.text)) or any(said and opening.startswith(said) for opening in openings)


def _before_drawing(turn: Turn) -> str | None:
    """The words before a turn's first drawing, "" for none; None where the turn has no drawing."""
    text = ""
    for part in turn.parts:
        if isinstance(part, TextPart):
            text = part.text
        elif part.use == DRAWN:
            return text
    return None
