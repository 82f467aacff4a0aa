"""`vargpt data show`: records token by token, with what is trained on and the pictures at the model's size."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import pytest
from PIL import Image

from tests import tiny
from tests.data.conftest import asked, drawn, png
from vargpt_lightning.cli import main
from vargpt_lightning.commands.data.sheet import SheetMaker, token_html, token_texts
from vargpt_lightning.commands.data.show import sheet_maker
from vargpt_lightning.data.shards.format import write_source
from vargpt_lightning.data.shards.records import Record, TextPart, Turn
from vargpt_lightning.data.text.text_tokenizer import TextTokenizer


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


def test_the_page_of_an_experiment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tiny.write_corpora(tmp_path / "data")
    experiment = tiny.write_experiment(tmp_path / "tiny.yaml", tiny.tiny_tree(data, tmp_path))
    words = ["data", "show", data["train"]["questions"], "--for", str(experiment), "--out", str(tmp_path / "a.html")]
    assert main([*words, "--count", "4"]) == 0
    assert "4 of 9 records" in capsys.readouterr().out
    text = (tmp_path / "a.html").read_text()
    assert text.count("<article") == 4 and text.count("data:image/png") == 4 and "http" not in text
    assert 'width="16"' in text and "trained on" in text
    main([*words[:-1], str(tmp_path / "b.html"), "--count", "4"])
    assert (tmp_path / "b.html").read_text() == text
    main([*words[:-1], str(tmp_path / "c.html"), "--count", "4", "--seed", "1"])
    assert (tmp_path / "c.html").read_text() != text


def test_the_page_of_a_run(finished_run: Path, tmp_path: Path) -> None:
    write_source([asked("q<1>"), drawn("d")], tmp_path / "packed", split="train")
    out = tmp_path / "show.html"
    assert main(["data", "show", str(tmp_path / "packed"), "--for", str(finished_run), "--out", str(out)]) == 0
    assert "q&lt;1&gt;" in out.read_text() and "&lt;image_gen&gt; × 21" in out.read_text()


def test_mistakes_are_one_line(finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_source([asked("q")], tmp_path / "packed", split="train")
    folder, run = str(tmp_path / "packed"), str(finished_run)
    for words, message in (
        ([folder, "--for", str(tmp_path / "none.yaml")], "none.yaml: not found; expected an experiment file or a run"),
        ([str(tmp_path / "none"), "--for", run], "index.json: not found"),
        ([folder, "--for", run, "--count", "0"], "--count 0: expected at least 1"),
        ([folder, "--for", folder], "run.json is missing"),
    ):
        assert main(["data", "show", *words]) == 2
        assert message in capsys.readouterr().err
