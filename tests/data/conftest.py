"""Small data that the tests of this folder share."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from vargpt_lightning.data.openmoji.pictures import DEFAULT_CATEGORIES, Emoji, load_emoji
from vargpt_lightning.data.openmoji.source import OpenMojiSettings, build_openmoji
from vargpt_lightning.data.shards.format import write_source
from vargpt_lightning.data.shards.records import PicturePart, Record, TextPart, Turn
from vargpt_lightning.data.text.text_tokenizer import TextTokenizer


def png(colour: str = "red", size: int = 16) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(buffer, "PNG")
    return buffer.getvalue()


def asked(name: str, answer: str = "Red", data: bytes | None = None, question: str = "What colour is it?") -> Record:
    picture = PicturePart("seen", name, png() if data is None else data)
    turns = (Turn("user", (picture, TextPart(question))), Turn("assistant", (TextPart(answer),)))
    return Record(name, "test", turns, {"kind": "colour", "answer": answer})


def drawn(name: str, data: bytes | None = None) -> Record:
    picture = PicturePart("drawn", name, png() if data is None else data)
    answer = Turn("assistant", (TextPart("Here it is:"), picture, TextPart("Done.")))
    return Record(name, "test", (Turn("user", (TextPart("Draw it."),)), answer), {"kind": "draw"})


@pytest.fixture(scope="session")
def emoji() -> list[Emoji]:
    return load_emoji(DEFAULT_CATEGORIES)


@pytest.fixture(scope="session")
def openmoji(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_openmoji(OpenMojiSettings(), tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def tokenizer() -> TextTokenizer:
    texts = ["USER: What colour is it? ASSISTANT: Red", "USER: Draw it. ASSISTANT: Here it is: Done.", " Yes No"]
    return TextTokenizer.train(texts * 3, 400)


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """Ten records in several small shards."""
    folder = tmp_path / "source"
    write_source((asked(f"r{i}", f"Answer {i}") for i in range(10)), folder, split="train", shard_bytes=9000)
    return folder
