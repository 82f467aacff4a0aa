"""Captions and a service for them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.data.writing.service import Service
from vargpt_lightning.data.writing.captions import Caption

THINGS = (
    "a tench on grass", "a castle by a lake", "a yellow lemon", "two zebras in dry savannah", "a church with snow",
    "a violin on velvet", "an ostrich behind a fence", "a volcano at night", "a bicycle in rain", "a teapot with mint",
    "a lighthouse on rocks", "a rooster near a barn",
)  # fmt: skip


@pytest.fixture
def service() -> Iterator[Service]:
    with Service() as server:
        yield server


@pytest.fixture
def captions() -> list[Caption]:
    return [Caption(f"n{number:02d}", f"pictures/{number}.jpg", text) for number, text in enumerate(THINGS)]


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
