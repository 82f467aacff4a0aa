"""What is kept of what was written, and how replies are read."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from vargpt_lightning.data.writing.captions import Caption
from vargpt_lightning.data.writing.filters import Duplicates, Filters, FilterSettings, shares_nouns
from vargpt_lightning.data.writing.replies import is_refusal, read_reply
from vargpt_lightning.data.writing.templates import Written
from vargpt_lightning.data.writing.words import content_words, in_language
from vargpt_lightning.utils.errors import UserError

FORM = json.dumps({"request": "Draw a\n fox", "answer": " Here: "})
TENCH = Caption("a", "p.jpg", "a man holding a large tench on the green grass")


@pytest.mark.parametrize(
    "text", [FORM, f"```json\n{FORM}\n```", f"```\n{FORM}\n```", f"<think>a fox {{}}</think>\n{FORM}", f" {FORM}\n"]
)
def test_forms_of_replies_that_are_read(text: str) -> None:
    assert read_reply(text) == Written("Draw a fox", "Here:")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"), (" \n", "empty"), ("<think>hm</think>", "empty"),
        ("I can't do that.", "refused"), ("As an AI language model, I", "refused"),
        (f"Sure: {FORM}", "wrong form"), (FORM[:-3], "wrong form"), ("null", "wrong form"), ("[" * 5000, "wrong form"),
        ('{"request": "a", "answer": null}', "wrong form"), ('{"request": "\\ud800", "answer": "b"}', "wrong form"),
    ],
)  # fmt: skip
def test_replies_of_the_wrong_form(text: str, reason: str) -> None:
    assert read_reply(text) == reason


@pytest.mark.parametrize(
    "text", ["I’m sorry, no.", "I cannot draw people.", "Unfortunately I am unable to.", "My apologies"]
)
def test_refusals(text: str) -> None:
    assert is_refusal(text)


@pytest.mark.parametrize("text", ["Sure, here it is:", "A can of soup that I like:", "I drew a sorry dog:"])
def test_no_refusals(text: str) -> None:
    assert not is_refusal(text)


@pytest.mark.parametrize(
    ("request_", "answer", "shared"),
    [
        ("Draw a tench.", "Here it is:", True),
        ("Could you draw some tenches?", "Sure, here is the image that you asked for:", True),
        ("Show me a man with a fish.", "Here is a man with a fish:", True),
        ("Draw something large and green.", "Here it is:", False),
        ("Please draw a picture for me.", "Here is a tench:", False),
        ("Draw a tench.", "Here is a majestic eagle over the mountains:", False),
        ("Draw a tench.", "Here is a tench in its natural habitat:", True),
    ],
)
def test_nouns_are_shared(request_: str, answer: str, shared: bool) -> None:
    assert shares_nouns(TENCH.text, Written(request_, answer)) is shared


def test_content_words_leave_out_what_does_not_tell() -> None:
    assert content_words("Could you please draw two large green berries, foxes and a glass for me?") == {
        "berry", "fox", "glass",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "english"),
    [
        ("Could you draw a tench on the grass for me?", True),
        ("Draw ein tench", True),  # too short to tell by its words
        ("Kannst du bitte einen Fisch auf dem Gras für mich zeichnen?", False),
        ("Peux-tu dessiner une tanche sur un lit de mousse pour moi ?", False),
        ("请画一条在草地上的丁鱥。", False),
        ("Нарисуй рыбу на траве", False),
        ("123 456", False),
    ],
)
def test_language(text: str, english: bool) -> None:
    assert in_language(text, "en") is english


def test_near_duplicates() -> None:
    known = Duplicates(0.9)
    assert not known.seen("Could you draw a red fox on the grass near a river? Here is a red fox on the grass:")
    assert known.seen("Could you draw a red fox on the grass near a river? Here is a red fox on the grass!")
    assert known.seen("could you draw the red fox on the grass near a river? Here is a red fox on the grass:")
    assert not known.seen("Could you draw a red dog on the grass near a river? Here is a red dog on the grass:")
    assert not known.seen("I would like to see a volcano at night. Of course:")


def test_reasons_are_counted() -> None:
    filters = Filters(FilterSettings(request_words=(3, 8)), lambda caption, written: 25.0)
    texts: list[Written | str] = [
        Written("Draw a tench now.", "Here it is:"), Written("Draw a tench now.", "Here it is:"), "wrong form",
        Written("Draw tench.", "Here it is:"), Written("Draw a tench " * 3, "Here it is:"),
        Written("Draw a tench now.", ""), Written("Draw a car now.", "Here it is:"),
    ]  # fmt: skip
    found = [filters.reason(TENCH, text) for text in texts]
    assert found == [None, "near duplicate", "wrong form", "too short", "too long", "empty", "other nouns"]
    assert filters.counts == Counter(found[1:])


def test_pictures_unlike_their_captions() -> None:
    scores = {"a": 31.0, "b": 12.0, "c": None, "d": float("nan")}
    filters = Filters(FilterSettings(min_similarity=20.0, duplicates=None), lambda caption, _: scores[caption.id])
    text = Written("Draw a tench.", "Here it is:")
    found = {id_: filters.reason(Caption(id_, "p", "a tench"), text) for id_ in scores}
    assert found == {"a": None, "b": "unlike picture", "c": "unlike picture", "d": "unlike picture"}
    with pytest.raises(UserError, match="nothing to measure with"):
        Filters(FilterSettings(min_similarity=20.0))


@pytest.mark.parametrize(
    ("options", "text"),
    [({"language": "xx"}, "language 'xx'"), ({"duplicates": 0.0}, "duplicates"), ({"request_words": (5, 2)}, "words")],
)
def test_settings_out_of_their_range(options: dict[str, object], text: str) -> None:
    with pytest.raises(UserError, match=text):
        FilterSettings(**options)  # type: ignore[arg-type]
