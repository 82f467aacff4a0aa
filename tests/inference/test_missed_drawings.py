from __future__ import annotations

import pytest
import torch
from PIL import Image

from vargpt_lightning.inference.assistant import Conversation
from vargpt_lightning.inference.missed_drawings import missed_drawing
from vargpt_lightning.models.generation.answers import Answer, PicturePart, TextPart

PICTURE = PicturePart(Image.new("RGB", (2, 2)), torch.zeros(1))


def said(text: str = "", drawn: bool = False, finished: str = "end") -> Answer:
    parts = [TextPart(text, ())] if text else []
    return Answer([*parts, *([PICTURE] if drawn else [])], finished=finished)  # type: ignore[arg-type]


def after(request: str, *earlier: Answer, seen: bool = False) -> Conversation:
    talk = Conversation()
    for answer in earlier:
        talk.ask("Please draw a dog.")
        talk.add(answer)
    talk.ask(request, {"seen-0": torch.zeros(3, 2, 2)} if seen else {})
    return talk


DREW = said("Here it is:", drawn=True)


@pytest.mark.parametrize(
    "request_",
    ["Please draw a cat.", "Show me a picture of a cat.", "I would like to see a cat.", "Paint a cat", "A cat!"],
)
def test_words_that_stand_before_drawings_are_no_drawing(request_: str) -> None:
    assert missed_drawing(after(request_, DREW), said("Here"))
    assert missed_drawing(after(request_, DREW), said("Here it is:"))


def test_a_request_to_draw_that_is_answered_in_words_alone() -> None:
    for text in ("Sure, here you are:", "Yes", ""):
        assert missed_drawing(after("Can you draw a cat?", DREW), said(text))
        assert missed_drawing(after("Make an image of a cat.", DREW, said("Yes")), said(text))


def test_what_is_no_missed_drawing() -> None:
    assert not missed_drawing(after("Please draw a cat."), said("Here")), "nothing was drawn before"
    assert not missed_drawing(after("Please draw a cat.", said("No")), said("Here"))
    assert not missed_drawing(after("Please draw a cat.", DREW), said("Here", drawn=True))
    assert not missed_drawing(after("Please draw a cat.", DREW), said("He", finished="stopped"))
    assert not missed_drawing(after("What is the main colour?", DREW), said("Green"))
    assert not missed_drawing(after("Is this a drawing?", DREW, seen=True), said("Yes"))
