"""POST /v1/images/edits: a picture and an instruction in, a picture out."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import openai
import pytest
from PIL import Image

from tests.serving.conftest import Running, serving
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.inference.load import LoadedRun


def png(width: int, height: int, colour: str = "red") -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(content, "PNG")
    return content.getvalue()


@pytest.fixture(scope="module")
def sized(assistant: LoadedRun) -> LoadedRun:
    """The tiny run's weights in a model that draws wide pictures too."""
    config = assistant.model.config
    model = VARGPT(replace(config, tokenizer=replace(config.tokenizer, sizes=((1, 2, (4, 6)),))))
    model.load_state_dict(assistant.model.state_dict())
    return replace(assistant, model=model.eval())


@pytest.fixture
def running(sized: LoadedRun) -> Iterator[Running]:
    with serving(sized) as made:
        yield made


@pytest.fixture
def client(running: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0, timeout=60)


def shape(found: Any) -> tuple[int, int]:
    return Image.open(io.BytesIO(base64.b64decode(found.b64_json))).size


def test_a_picture_is_drawn_anew(client: openai.OpenAI) -> None:
    ask = {"model": "tiny", "prompt": "Make it blue.", "extra_body": {"seed": 1}}
    one = client.images.edit(image=("a.png", png(20, 20)), n=2, **ask)
    assert [shape(found) for found in one.data] == [(8, 8)] * 2 and one.size == "8x8"
    assert one.usage.input_tokens_details.image_tokens == 4 and one.usage.input_tokens_details.text_tokens > 4
    again = client.images.edit(image=("a.png", png(20, 20)), **ask)
    assert again.data[0].b64_json == one.data[0].b64_json
    plain = client.images.generate(model="tiny", prompt="Make it blue.", extra_body={"seed": 1})
    assert plain.usage.input_tokens == again.usage.input_tokens - 5, "four places, and the line break behind them"


def test_the_size_is_that_of_the_picture_or_as_asked(client: openai.OpenAI) -> None:
    ask = {"model": "tiny", "prompt": "Make it blue.", "extra_body": {"seed": 1}}
    assert shape(client.images.edit(image=png(31, 20), **ask).data[0]) == (12, 8)
    assert shape(client.images.edit(image=png(31, 20), size="8x8", **ask).data[0]) == (8, 8)  # type: ignore[arg-type]
    assert shape(client.images.edit(image=[png(20, 21), png(31, 20)], size="auto", **ask).data[0]) == (8, 8)


def test_an_edit_may_be_streamed(running: Running) -> None:
    data = {"prompt": "Make it blue.", "stream": "true", "partial_images": "1", "seed": "3"}
    url = f"{running.url}/v1/images/edits"
    with httpx.stream("POST", url, data=data, files={"image": png(9, 9)}, timeout=60) as answer:
        text = "".join(answer.iter_text())
    assert "event: image_edit.partial_image" in text and "event: image_edit.completed" in text


@pytest.mark.parametrize(
    ("data", "files", "told", "param"),
    [
        ({"prompt": "a"}, [("other", b"x")], "other is not supported", "other"),
        ({"prompt": "a"}, [("image", b"")], "image: got no picture, expected the file", "image"),
        ({"prompt": "a"}, [("image", b"no picture")], "10 bytes that are no picture", "image"),
        ({"prompt": "a"}, [("image", png(9, 9)), ("mask", png(9, 9))], "mask is not supported", "mask"),
        ({"prompt": " "}, [("image", png(9, 9))], "the prompt is empty", "prompt"),
        ({}, [("image", png(9, 9))], "prompt: ", "prompt"),
        ({"prompt": "a", "n": "many"}, [("image", png(9, 9))], 'n: got "many", expected a whole number', "n"),
        ({"prompt": "a", "size": "7x5"}, [("image", png(9, 9))], "size: got '7x5', whose aspect ratio", "size"),
        ({"prompt": "a"}, [("image", png(9, 9))] * 9, "9 pictures; expected 8 at most", "image"),
        ({"prompt": "a " * 90}, [("image", png(9, 9))] * 8, "the model's context holds", None),
    ],
)
def test_edits_that_cannot_be_made_are_refused(
    running: Running, data: dict[str, str], files: list[tuple[str, bytes]], told: str, param: str | None
) -> None:
    form = [(name, (f"{number}.png", content)) for number, (name, content) in enumerate(files)]
    answer = httpx.post(f"{running.url}/v1/images/edits", data=data, files=form, timeout=60)
    error = answer.json()["error"]
    assert answer.status_code == 400 and told in error["message"] and error["param"] == param


def test_other_bodies_are_refused(running: Running) -> None:
    answer = httpx.post(f"{running.url}/v1/images/edits", json={"prompt": "a"})
    assert answer.status_code == 400 and "is not multipart/form-data" in answer.json()["error"]["message"]
