"""Pictures of several sizes behind the API: drawn as asked, refused by name, and sent back as they came."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.serving.conftest import Running, serving
from vargpt_lightning.inference.load import LoadedRun


@pytest.fixture
def running(sized: LoadedRun) -> Iterator[Running]:
    with serving(sized) as made:
        yield made


def post(running: Running, path: str, **body: Any) -> dict[str, Any]:
    answer = httpx.post(f"{running.url}/v1/{path}", json=body, timeout=30)
    return dict(answer.json(), status=answer.status_code)


def shape(content: str) -> tuple[int, int]:
    return Image.open(io.BytesIO(base64.b64decode(content.partition(",")[2] or content))).size


def test_drawings_have_the_size_that_is_asked_for(running: Running) -> None:
    for size, expected in ((None, (8, 8)), ("auto", (8, 8)), ("12x8", (12, 8)), ("8x12", (8, 12)), ("3:2", (12, 8))):
        found = post(running, "images/generations", prompt="a dog", size=size, seed=1)
        assert shape(found["data"][0]["b64_json"]) == expected and found["size"] == f"{expected[0]}x{expected[1]}"
    refused = post(running, "images/generations", prompt="a dog", size="10x9")
    message = "size: got '10x9', whose aspect ratio is none of this model's; the nearest: 8x8 and 12x8"
    assert refused["status"] == 400 and refused["error"]["param"] == "size" and message in refused["error"]["message"]


def test_a_chat_goes_on_after_pictures_of_several_sizes(running: Running, script: Any) -> None:
    messages: list[dict[str, Any]] = []
    for size, expected in (("12x8", (12, 8)), ("8x12", (8, 12)), (None, (8, 8))):
        script("So.*")
        messages.append({"role": "user", "content": "Draw."})
        found = post(running, "chat/completions", messages=messages, size=size, seed=3)
        messages.append(found["choices"][0]["message"])
        assert shape(messages[-1]["images"][0]["image_url"]["url"]) == expected
    refused = post(running, "chat/completions", messages=messages[:1], size="7x7")
    assert refused["status"] == 400 and "expected 8x8 for its aspect ratio" in refused["error"]["message"]
