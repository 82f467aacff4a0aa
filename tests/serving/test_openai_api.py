"""The API over real HTTP, with the official client."""

from __future__ import annotations

import base64
import io
import json
import threading
import time

import httpx
import openai
import pytest
from PIL import Image

from tests.serving.conftest import Running, serving
from vargpt_lightning.serving.limits import Limits


@pytest.fixture
def client(running: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0, timeout=60)


def data_url(image: Image.Image, kind: str = "PNG") -> str:
    content = io.BytesIO()
    image.save(content, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(content.getvalue()).decode()}"


def shown(text: str, *urls: str) -> list:
    pictures = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [*pictures, {"type": "text", "text": text}]}]


def opened(url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


def test_chat_with_pictures_both_ways(client: openai.OpenAI, script) -> None:
    script("A dog:*there")
    red, blue = (data_url(Image.new("RGB", (30, 20), colour), "JPEG") for colour in ("red", "blue"))
    said = client.chat.completions.create(model="tiny", messages=shown("Which?", red, blue), seed=3)
    choice = said.choices[0]
    assert choice.message.content == "A dog:\nthere" and choice.finish_reason == "stop"
    (picture,) = choice.message.model_extra["images"]
    assert opened(picture["image_url"]["url"]).size == (8, 8)
    kinds = [part["type"] for part in choice.message.model_extra["parts"]]
    assert kinds == ["text", "image", "text"] and said.usage.completion_tokens > 21
    # The answer as it came, pictures and all, is the context of the next turn.
    earlier = [*shown("Which?", red), choice.message.model_dump(exclude_none=True)]
    again = client.chat.completions.create(model="tiny", messages=[*earlier, {"role": "user", "content": "And?"}])
    one = client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "And?"}])
    assert again.usage.prompt_tokens - one.usage.prompt_tokens > 23 + 4, "a drawn picture, a seen one, their text"


def test_the_same_seed_draws_the_same_picture_in_chat(client: openai.OpenAI, script) -> None:
    script("*")
    ask = {"model": "tiny", "messages": shown("Draw."), "n": 2}
    first, second = (client.chat.completions.create(**ask, seed=5).choices for _ in range(2))
    other = client.chat.completions.create(**ask, seed=6).choices
    urls = [[choice.message.model_extra["images"] for choice in each] for each in (first, second, other)]
    assert urls[0] == urls[1] and urls[0][0] != urls[2][0] and urls[0][0] != urls[0][1]


def test_a_streamed_chat(client: openai.OpenAI, script) -> None:
    script("one two*three")
    options = {"stream_options": {"include_usage": True}, "extra_body": {"sketches": True}}
    chunks = list(client.chat.completions.create(model="tiny", messages=shown("Draw."), stream=True, **options))
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert deltas[0].role == "assistant"
    assert "".join(delta.content or "" for delta in deltas) == "one two\nthree"
    assert sum(bool(delta.content) for delta in deltas) > 2, "piece by piece"
    sketches = [delta.model_extra["sketch"] for delta in deltas if "sketch" in delta.model_extra]
    assert [(sketch["scale"], sketch["scales"]) for sketch in sketches] == [(1, 3), (2, 3), (3, 3)]
    (images,) = [delta.model_extra["images"] for delta in deltas if "images" in delta.model_extra]
    assert images[0]["image_url"] == sketches[-1]["image_url"]
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage.completion_tokens > 0 and chunks[-1].choices == []
    assert all("usage" in chunk.model_fields_set and chunk.usage is None for chunk in chunks[:-1])


def streamed(running: Running, **body) -> tuple[str, str, dict]:
    """The words of a stream, why it ended, and the last event."""
    text, finish = "", ""
    answer = httpx.post(f"{running.url}/v1/chat/completions", json={**body, "stream": True}, timeout=30)
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    for event in events:
        for choice in event["choices"]:
            text += choice["delta"].get("content") or ""
            finish = choice["finish_reason"] or finish
    return text, finish, events[-1]


SPOKEN = ["A*B*C", "*After.", "**", "*a*", " a * b ", "one two*three", "naïve café 😀 ok", "  two  spaces \n\nnew "]
SPOKEN += ["a\n*\nb", "", " \n ", "\ufffd", "a \ufffd b", "e\u0301 \u200d", "日本語*日本", "\t\ta\t"]


@pytest.mark.parametrize("said", SPOKEN)
def test_a_stream_says_what_the_whole_answer_says(running: Running, script, said: str) -> None:
    script(said)
    body = {"messages": shown("Draw."), "max_images": 2}
    whole = httpx.post(f"{running.url}/v1/chat/completions", json=body, timeout=30).json()["choices"][0]
    text, finish, _ = streamed(running, **body)
    assert text == whole["message"]["content"] == "\n".join(filter(None, map(str.strip, said.split("*"))))
    assert finish == whole["finish_reason"]


STOPPED = [
    ("one two three", "two", "one"),
    ("one two three", ["three", "two"], "one"),
    ("one two three", ["e t", "x", "y", "z"], "on"),
    ("one two three", "one", ""),
    ("one two three", "threes", None),
    ("one. Two. Three.", ". T", "one"),
    ("naïve café 😀 ok", "😀", "naïve café"),
    ("naïve café 😀 ok", "é ", "naïve caf"),
    ("a b*c d", "c", "a b"),
    ("a\n\nUSER: b", ["\n\nUSER:"], "a"),
    ("a", " ", None),
]


@pytest.mark.parametrize(("said", "stop", "left"), STOPPED)
def test_an_answer_ends_before_a_stop(running: Running, script, said: str, stop, left: str | None) -> None:
    script(said)
    body = {"messages": shown("Say."), "stop": stop}
    whole = httpx.post(f"{running.url}/v1/chat/completions", json=body, timeout=30).json()["choices"][0]
    expected = said if left is None else left
    assert (whole["message"]["content"], whole["finish_reason"]) == (expected, "stop")
    assert streamed(running, **body)[:2] == (expected, "stop"), "nothing of it gets into the stream"


def test_a_stop_saves_what_would_have_come_after(running: Running, script) -> None:
    script("one two three four five")
    body = {"messages": shown("Say."), "stop": "two"}
    usage = httpx.post(f"{running.url}/v1/chat/completions", json=body, timeout=30).json()["usage"]
    assert usage["completion_tokens"] <= len(" one two")


def test_an_answer_sent_back_keeps_its_order(running: Running, script, monkeypatch) -> None:
    prompts = []
    whole_prompt = running.service.engine.assistant.prompt

    def prompt(*given):
        prompts.append(whole_prompt(*given))
        return prompts[-1]

    monkeypatch.setattr(running.service.engine.assistant, "prompt", prompt)
    tokenizer = running.service.engine.assistant.tokenizer
    for said, expected in (("*After.", "* After."), ("A*B*C", " A* B* C"), ("Before.*", " Before.*"), ("**", "**")):
        script(said)
        url, body = f"{running.url}/v1/chat/completions", {"messages": shown("Draw."), "max_images": 2}
        answer = httpx.post(url, json=body, timeout=30).json()["choices"][0]["message"]
        script("Yes")
        again = [*shown("Draw."), answer, *shown("And?")]
        assert httpx.post(url, json={"messages": again}, timeout=30).status_code == 200
        text = tokenizer.decode(prompts[-1].input_ids, skip_special=False)
        drawn = "<image_gen_start>" + "<image_gen>" * 21 + "<image_gen_end>"
        assert text == f"<s>USER: Draw. ASSISTANT:{expected.replace('*', drawn)}</s>USER: And? ASSISTANT:"


def test_drawings(client: openai.OpenAI) -> None:
    drawn = client.images.generate(model="tiny", prompt="Draw a dog.", n=2, extra_body={"seed": 1, "cfg": 0.0})
    pictures = [Image.open(io.BytesIO(base64.b64decode(one.b64_json))) for one in drawn.data]
    assert [picture.size for picture in pictures] == [(8, 8)] * 2 and pictures[0].tobytes() != pictures[1].tobytes()
    again = client.images.generate(model="tiny", prompt="Draw a dog.", extra_body={"seed": 1, "cfg": 0.0})
    assert again.data[0].b64_json == drawn.data[0].b64_json
    other = client.images.generate(model="tiny", prompt="Draw a dog.", extra_body={"seed": 1, "image_temperature": 0})
    assert other.data[0].b64_json != drawn.data[0].b64_json, "the settings arrive"


def test_parts_without_effect_are_told_of_in_every_form(client: openai.OpenAI, script) -> None:
    script("Done")  # a request for a picture begins its drawing itself
    extra = {"extra_body": {"cfg": 0, "image_parts": {"schedule": {}}}}
    told = {"schedule": "cfg is 0, so that there is no guidance"}
    assert client.images.generate(prompt="Draw.", model="tiny", **extra).model_extra["idle_parts"] == told
    script("*")
    said = client.chat.completions.create(model="tiny", messages=shown("Draw."), **extra)
    assert said.model_extra["idle_parts"] == told
    chunks = list(client.chat.completions.create(model="tiny", messages=shown("Draw."), stream=True, **extra))
    assert all(chunk.model_extra["idle_parts"] == told for chunk in chunks)


def test_a_streamed_drawing(client: openai.OpenAI) -> None:
    events = list(client.images.generate(model="tiny", prompt="Draw a dog.", stream=True, partial_images=2))
    kinds = ["image_generation.partial_image"] * 2 + ["image_generation.completed"]
    assert [event.type for event in events] == kinds
    assert len({event.b64_json for event in events}) == 3


def test_the_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "vargpt-lightning"
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt-4'") as refused:
        client.chat.completions.create(model="gpt-4", messages=shown("Hello"))
    assert refused.value.code == "model_not_found"


def bomb() -> str:
    return data_url(Image.new("1", (4000, 4000)))


REFUSED = {
    "100,000 characters": ({"messages": shown("a" * 100_000)}, 400, "string_above_max_length"),
    "context": ({"messages": shown("dog " * 200)}, 400, "context_length_exceeded"),
    "no picture": ({"messages": shown("?", "data:image/png;base64,aGVsbG8=")}, 400, "invalid_image"),
    "no base64": ({"messages": shown("?", "data:image/png;base64,!!!")}, 400, "invalid_image_url"),
    "cut off": ({"messages": shown("?", data_url(Image.effect_noise((99, 99), 9))[:-200])}, 400, "invalid_image"),
    "many pixels": ({"messages": shown("?", bomb())}, 413, "too_large"),
    "many bytes": ({"messages": shown("?", "data:image/png;base64," + "A" * 900_000)}, 413, "too_large"),
    "huge body": ({"messages": shown("?", "data:image/png;base64," + "A" * 2_000_000)}, 413, "too_large"),
    "many pictures": ({"messages": shown("?", *["data:,"] * 9)}, 400, "too_many_images"),
    "remote": ({"messages": shown("?", "http://127.0.0.1:1/a.png")}, 400, "remote_image_refused"),
    "file": ({"messages": shown("?", "file:///etc/passwd")}, 400, "invalid_image_url"),
    "nothing said": ({"messages": []}, 400, None),
    "no user": ({"messages": [{"role": "assistant", "content": "Hi"}]}, 400, None),
    "empty": ({"messages": shown("")}, 400, None),
    "role": ({"messages": [{"role": "tool", "content": "x"}]}, 400, None),
    "temperature": ({"messages": shown("?"), "temperature": 9}, 400, "invalid_value"),
    "cold": ({"messages": shown("?"), "temperature": 1e-300}, 400, "invalid_value"),
    "cold codes": ({"messages": shown("?"), "image_temperature": 1e-40}, 400, "invalid_value"),
    "guidance": ({"messages": shown("?"), "cfg": 1e308}, 400, "invalid_value"),
    "seed": ({"messages": shown("?"), "seed": 2**63}, 400, "invalid_value"),
    "five stops": ({"messages": shown("?"), "stop": list("abcde")}, 400, "invalid_value"),
    "top_p": ({"messages": shown("?"), "image_top_p": 7}, 400, "invalid_value"),
    "n": ({"messages": shown("?"), "n": 100}, 400, "invalid_value"),
    "tools": ({"messages": shown("?"), "tools": [{"type": "function"}]}, 400, "unsupported_parameter"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_says_why(running: Running, script, case: str) -> None:
    script("Yes")
    body, status, code = REFUSED[case]
    answer = httpx.post(f"{running.url}/v1/chat/completions", json=body, timeout=30)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code) and error["type"] == "invalid_request_error"
    assert 10 < len(error["message"]) < 400
    fine = httpx.post(f"{running.url}/v1/chat/completions", json={"messages": shown("Is it?")}, timeout=30)
    assert fine.json()["choices"][0]["message"]["content"] == "Yes"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"messages": "x"}', b"[" * 100_000, b"\xff", b'{"messages": NaN}']
)
def test_bodies_that_are_no_request(running: Running, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    answer = httpx.post(f"{running.url}/v1/chat/completions", content=body, headers=headers)
    assert answer.status_code == 400 and answer.json()["error"]["type"] == "invalid_request_error"


def test_a_body_without_a_length_is_cut_off(running: Running) -> None:
    pieces = (b"a" * 100_000 for _ in range(50))
    headers = {"Content-Type": "application/json"}
    answer = httpx.post(f"{running.url}/v1/chat/completions", content=pieces, headers=headers)
    assert answer.status_code == 413 and answer.json()["error"]["code"] == "too_large"


def test_drawings_that_are_refused(client: openai.OpenAI) -> None:
    for change in ({"size": "1024x1024"}, {"prompt": " "}, {"prompt": "a" * 9000}, {"response_format": "url"}):
        with pytest.raises(openai.BadRequestError):
            client.images.generate(**{"model": "tiny", "prompt": "a dog", **change})


@pytest.mark.parametrize("page", [False, True])
def test_unknown_paths_are_refused_in_the_same_form(assistant, page: bool) -> None:
    with serving(assistant, page=page) as running, httpx.Client(base_url=running.url) as client:

        def error(method: str, path: str, **given) -> tuple[int, str]:
            answer = client.request(method, path, **given)
            said = answer.json()["error"]
            assert set(said) == {"message", "type", "param", "code"} and said["type"] == "invalid_request_error"
            assert path.rstrip("/") in said["message"]
            return answer.status_code, said["code"]

        for path in ("/v1/embeddings", "/v1/responses", "/v1", "/v1/", "/v1/chat"):
            for method in ("GET", "POST", "DELETE"):
                assert error(method, path) == (404, "unknown_url")
        for path in ("/v1/chat/completions", "/v1/images/generations", "/v1/images/edits"):
            for method in ("GET", "PUT", "DELETE"):
                assert error(method, path) == (405, "method_not_supported")
        assert client.get("/v1/chat/completions").headers["allow"] == "POST"
        assert error("POST", "/v1/models") == error("POST", "/metrics") == (405, "method_not_supported")
        path = "/v1/images/variations"
        assert error("POST", path, files={"image": b"a"}) == error("POST", path, json={}) == (501, "not_implemented")


def test_fifty_clients_at_once(assistant, script) -> None:
    script("*")
    with serving(assistant, limits=Limits(requests_a_minute=10_000, queue=64)) as running:
        answers: list = []

        def ask(seed: int) -> None:
            body = {"messages": shown("Draw a dog."), "seed": seed % 5, "max_images": 1}
            answers.append((seed % 5, httpx.post(f"{running.url}/v1/chat/completions", json=body, timeout=60)))

        threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [answer.status_code for _, answer in answers] == [200] * 50
        drawn = {(seed, str(answer.json()["choices"][0]["message"]["images"])) for seed, answer in answers}
        assert len(drawn) == 5, "the neighbours of a request change nothing"
        together = metric(running, "vargpt_batch_answers_sum") / metric(running, "vargpt_batch_answers_count")
        assert metric(running, "vargpt_pictures_drawn_total") == 50 and together > 3, "they were batched"


def metric(running: Running, name: str) -> float:
    lines = httpx.get(f"{running.url}/metrics").text.splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])


def test_a_full_queue_and_too_many_requests(assistant, script, monkeypatch) -> None:
    script("Yes")
    held = threading.Event()
    whole = assistant.continue_all
    monkeypatch.setattr(assistant, "continue_all", lambda *given: held.wait(30) and whole(*given))
    with serving(assistant, limits=Limits(requests_a_minute=6, queue=2, batch=1)) as running:
        url, body = f"{running.url}/v1/chat/completions", {"messages": shown("Is it?")}
        answers: list[int] = []
        threads = []
        for _ in range(3):
            asking = threading.Thread(target=lambda: answers.append(httpx.post(url, json=body, timeout=60).status_code))
            asking.start()
            threads.append(asking)
            time.sleep(0.2)
        full = httpx.post(url, json=body)
        assert full.status_code == 503 and full.json()["error"]["code"] == "server_overloaded"
        assert int(full.headers["Retry-After"]) > 0
        held.set()
        for thread in threads:
            thread.join()
        assert answers == [200] * 3
        codes = [httpx.post(url, json=body).status_code for _ in range(4)]
        assert codes == [200, 200, 429, 429]
        assert httpx.get(f"{running.url}/health").json()["status"] == "ok"


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_stops_its_answer(assistant, script, monkeypatch, capfd, stream: bool) -> None:
    script("word " * 40)
    from vargpt_lightning.models.generation import generate as module

    write = module._Batch._write
    monkeypatch.setattr(module._Batch, "_write", lambda *given: (time.sleep(0.05), write(*given))[1])
    with serving(assistant) as running:
        body = {"messages": shown("Count."), "max_tokens": 100, "stream": stream}
        url = f"{running.url}/v1/chat/completions"
        with httpx.Client() as client:
            if stream:
                with client.stream("POST", url, json=body) as response:
                    next(response.iter_lines())
            else:
                with pytest.raises(httpx.ReadTimeout):
                    client.post(url, json=body, timeout=0.7)
        until = time.monotonic() + 3
        while running.service.engine.running and time.monotonic() < until:
            time.sleep(0.02)
        assert running.service.engine.running == 0
        name = 'vargpt_answers_total{finished="stopped"}'
        while f"{name} 1.0" not in httpx.get(f"{running.url}/metrics").text and time.monotonic() < until:
            time.sleep(0.02)
        assert f"{name} 1.0" in httpx.get(f"{running.url}/metrics").text
    assert "Traceback" not in capfd.readouterr().err


def test_a_fault_of_the_server_tells_nothing_and_does_not_end_it(assistant, script, monkeypatch) -> None:
    script("Yes")
    whole = assistant.continue_all

    def broken(*given):
        raise RuntimeError("secret")

    with serving(assistant) as running:
        url, body = f"{running.url}/v1/chat/completions", {"messages": shown("Is it?")}
        monkeypatch.setattr(assistant, "continue_all", broken)
        answer = httpx.post(url, json=body)
        assert answer.status_code == 500 and "secret" not in answer.text
        assert answer.json()["error"]["type"] == "server_error"
        events = httpx.post(url, json={**body, "stream": True}).text.split("\n\n")
        assert json.loads(events[-2].removeprefix("data: "))["error"]["code"] == "internal_error"
        monkeypatch.setattr(assistant, "continue_all", whole)
        assert httpx.post(url, json=body).status_code == 200
