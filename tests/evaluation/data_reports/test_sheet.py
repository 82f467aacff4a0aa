"""Records token by token, with what is trained on and the pictures at the model's size."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace

import pytest
from PIL import Image

from tests import tiny
from tests.data.conftest import asked, drawn, png
from vargpt_lightning.data.images.pictures import PictureReader
from vargpt_lightning.data.shards.records import Record, TextPart, Turn
from vargpt_lightning.data.text.text_tokenizer import TextTokenizer
from vargpt_lightning.evaluation.data_reports.sheet import SheetMaker, sheet_maker, token_html, token_texts


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer.train(["USER: What colour is it? ASSISTANT: Red"] * 3, 290)


@pytest.fixture
def maker(tokenizer: TextTokenizer) -> SheetMaker:
    return sheet_maker(tiny.tiny_config(), tokenizer)


@pytest.mark.parametrize("text", ["What colour?", "schön 🦊🦊 — “so”\nà", "é" * 100, "", "a\ud7ff \x00 b", "�x"])
def test_the_tokens_texts_are_the_text(text: str, tokenizer: TextTokenizer) -> None:
    ids = tokenizer.encode(text)
    texts = token_texts(ids, tokenizer)
    assert len(texts) == len(ids) and "".join(filter(None, texts)) == text


def test_a_character_of_several_tokens_is_shown_once(tokenizer: TextTokenizer) -> None:
    ids = tokenizer.encode("🦊")
    assert token_texts(ids, tokenizer) == ["🦊", None, None, None]


def test_a_question_is_shown_as_it_is_rendered(maker: SheetMaker) -> None:
    shown = maker(asked("q", "Blue"))
    trained = "".join(token.text for token in shown.tokens if token.trained)
    assert trained == " Blue</s>"
    (picture,) = [token for token in shown.tokens if token.picture]
    assert picture.text == f"<image> × {maker.template.seen_tokens}" and picture.special and not picture.trained
    given = "".join(token.text for token in shown.tokens if not token.trained and not token.special)
    assert given == "USER: \nWhat colour is it? ASSISTANT:"
    assert (shown.length, shown.cut, shown.notes) == (len(maker.template.render(asked("q", "Blue")).ids), False, [])


def test_pictures_have_the_models_size(maker: SheetMaker) -> None:
    for record, size in ((asked("a", data=png("red", 50)), 16), (drawn("b", png("blue", 50)), 8)):
        (picture,) = [token.picture for token in maker(record).tokens if token.picture]
        image = Image.open(io.BytesIO(base64.b64decode(picture["uri"].partition(",")[2])))
        assert image.size == (size, size) and picture["size"] == size
        colour = image.convert("RGB").getpixel((size // 2, size // 2))
        assert colour == ((255, 0, 0) if record.id == "a" else (0, 0, 255))


def test_a_broken_picture_is_said(maker: SheetMaker) -> None:
    (picture,) = [token.picture for token in maker(asked("a", data=b"GIF8 no")).tokens if token.picture]
    assert not picture["uri"] and "no picture" in picture["error"]


def test_what_does_not_fit_is_said(maker: SheetMaker) -> None:
    turns = asked("a").turns + drawn("b").turns + (Turn("user", (TextPart("long " * 200),)),)
    shown = maker(Record("x", "s", turns))
    assert shown.cut and shown.length < shown.whole and f"cut at the context of {maker.context}" in shown.notes[0]
    shown = maker(Record("x", "s", (Turn("user", (TextPart("long " * 200),)),)))
    assert shown.notes[-1] == "nothing of it is trained: training passes it over"


def test_texts_are_escaped(maker: SheetMaker) -> None:
    shown = maker(asked("a", "<script>alert(1)</script>"))
    text = "".join(map(token_html, shown.tokens))
    assert "<script>" not in text and "&lt;" in text and '<span class="nl">↵</span>' in text
    assert re.sub(r"<[^>]+>", "", text).count("ASSISTANT:") == 1


def test_drawn_pictures_are_shown_at_the_tokenizer_s_size(tokenizer: TextTokenizer) -> None:
    config = tiny.tiny_config()
    assert sheet_maker(config, tokenizer).drawn == (PictureReader(8),)
    config.tokenizer = replace(config.tokenizer, patch=2)
    assert sheet_maker(config, tokenizer).drawn[0].size == 16
    config.tokenizer = replace(config.tokenizer, kind="bits", patchify=True)
    assert sheet_maker(config, tokenizer).drawn[0].size == 32
    config.tokenizer = replace(config.tokenizer, sizes=((1, (1, 2)),))
    assert sheet_maker(config, tokenizer).drawn[1].shape == (16, 32)
