"""An endpoint over real HTTP: what is sent, what is tried again, what is final, and what is kept."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any

import pytest
from PIL import Image

from vargpt_lightning.evaluation.base.protocols import AnswerRequest, TextModel, UnfinishedError
from vargpt_lightning.evaluation.systems.openai_endpoint import EndpointSettings, OpenAIEndpoint
from vargpt_lightning.utils.errors import UserError

KEY = "sk-secret-123"


def said(text: Any, finish: str = "stop") -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": finish}]}


class Service(ThreadingHTTPServer):
    """Answers as `script` says, and remembers what it was asked, when, and by how many at a time."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: Callable[[str, int], Any] = lambda question, attempt: said(f"re: {question}")
        self.seen: list[dict[str, Any]] = []
        self.headers: list[Any] = []
        self.times: dict[str, list[float]] = {}
        self.attempts: Counter[str] = Counter()
        self.now = self.most = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Service

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = body["messages"][-1]["content"][-1]["text"]
        with self.server.lock:
            self.server.seen.append(body)
            self.server.headers.append((self.path, self.headers))
            self.server.times.setdefault(question, []).append(time.monotonic())
            attempt = self.server.attempts[question]
            self.server.attempts[question] += 1
            self.server.now += 1
            self.server.most = max(self.server.most, self.server.now)
        try:
            reply = self.server.script(question, attempt)
        finally:
            with self.server.lock:  # before the reply: who has it may ask again at once
                self.server.now -= 1
        self._answer(reply)

    def _answer(self, what: Any) -> None:
        status, content, headers = what if isinstance(what, tuple) else (200, what, {})
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        try:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(raw)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(raw)
        except OSError:  # the asker did not wait
            pass

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def service() -> Iterator[Service]:
    with Service() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def endpoint(service: Service, **options: Any) -> OpenAIEndpoint:
    return OpenAIEndpoint(service.url, "tiny", EndpointSettings(**{"backoff": 0.01, "timeout": 5.0, **options}))


def asked(*questions: str) -> list[AnswerRequest]:
    return [AnswerRequest(question, question) for question in questions]


def test_pictures_go_before_the_question_as_data_urls(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    system = endpoint(service, system_prompt="Be brief.", extra={"seed": 7})
    assert isinstance(system, TextModel)
    colours = ((200, 10, 30), (0, 255, 0))
    pictures = tuple(Image.new("RGB", (6, 4), colour) for colour in colours)
    reply = system.answer([AnswerRequest("a", "What?", pictures, 11)])[0]
    assert (reply.text, reply.finish) == ("re: What?", "stop")
    path, headers = service.headers[0]
    assert path == "/v1/chat/completions" and headers["Authorization"] == f"Bearer {KEY}"
    body = service.seen[0]
    assert {key: body[key] for key in ("model", "temperature", "max_tokens", "seed")} == {
        "model": "tiny", "temperature": 0.0, "max_tokens": 11, "seed": 7,
    }  # fmt: skip
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    *shown, text = body["messages"][1]["content"]
    assert text == {"type": "text", "text": "What?"}
    for part, colour in zip(shown, colours, strict=True):
        kind, _, data = part["image_url"]["url"].partition(",")
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            assert kind == "data:image/png;base64" and picture.format == "PNG" and picture.getpixel((5, 3)) == colour


def test_a_question_with_a_token_for_each_picture_has_them_there(service: Service) -> None:
    pictures = (Image.new("RGB", (2, 2)),) * 2
    endpoint(service, picture_format="jpeg").answer([AnswerRequest("a", "Is <image> in <image>?", pictures)])
    content = service.seen[0]["messages"][0]["content"]
    assert [part.get("text", "picture") for part in content] == ["Is ", "picture", " in ", "picture", "?"]
    assert content[1]["image_url"]["url"].startswith("data:image/jpeg;base64,")
    assert service.headers[0][1]["Authorization"] is None and service.seen[0]["max_tokens"] == 256


@pytest.mark.parametrize(
    ("body", "text", "finish"),
    [
        (said("cut", "length"), "cut", "length"),
        (said(" yes \n", "eos"), " yes \n", ""),
        (said([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]), "ab", "stop"),
        (said(None, "length"), "", "length"),
        ({"choices": [{"message": {"content": None, "refusal": "No."}, "finish_reason": "stop"}]}, "No.", "stop"),
    ],
)  # fmt: skip
def test_forms_of_answers(service: Service, body: Any, text: str, finish: str) -> None:
    service.script = lambda *_: body
    reply = endpoint(service).answer(asked("q"))[0]
    assert (reply.text, reply.finish) == (text, finish)


@pytest.mark.parametrize(
    "trouble",
    [
        (429, {"error": {"message": "slow down"}}, {}),
        (500, b"oops", {}),
        (503, {"error": "busy"}, {}),
        (408, b"", {}),
        (200, b"<html>no JSON</html>", {}),
        (200, b"\xff\xfe", {}),
        (200, [], {}),
        (200, {"choices": []}, {}),
        (200, {"choices": [{"message": {"content": 7}}]}, {}),
        (200, {"error": {"message": "upstream"}}, {}),
        (200, b'{"choices": [{"mess', {"Content-Length": "4000"}),
    ],
)
def test_trouble_that_passes_is_tried_again(service: Service, trouble: Any) -> None:
    service.script = lambda question, attempt: trouble if attempt < 2 else said("at last")
    assert endpoint(service, timeout=0.5).answer(asked("q"))[0].text == "at last"
    assert service.attempts["q"] == 3


def test_a_time_out_is_tried_again(service: Service) -> None:
    def slow(question: str, attempt: int) -> Any:
        time.sleep(0.5 if attempt == 0 else 0)
        return said("in time")

    service.script = slow
    assert endpoint(service, timeout=0.15).answer(asked("q"))[0].text == "in time"
    assert service.attempts["q"] == 2


def test_waits_grow(service: Service) -> None:
    service.script = lambda question, attempt: (500, b"", {}) if attempt < 4 else said("x")
    endpoint(service, backoff=0.04).answer(asked("q"))
    at = service.times["q"]
    waits = [later - before for before, later in pairwise(at)]
    # each is between a half and the whole of 0.04, 0.08, 0.16, 0.32, and the time of a call
    assert all(wait >= 0.02 * 2**number for number, wait in enumerate(waits)) and waits[3] > waits[0]


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_the_server_says_how_long_to_wait(service: Service, form: str) -> None:
    after = "0.3" if form == "seconds" else format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    service.script = lambda question, attempt: (429, b"", {"Retry-After": after}) if attempt == 0 else said("x")
    endpoint(service).answer(asked("q"))
    first, second = service.times["q"]
    assert second - first >= (0.3 if form == "seconds" else 0.7)  # a date has whole seconds


def test_a_server_that_wants_to_be_left_alone_for_long_is(service: Service) -> None:
    service.script = lambda *_: (429, b"", {"Retry-After": "3600"})
    with pytest.raises(UserError, match="left alone for 3600 s, longer than 120 s"):
        endpoint(service).answer(asked("q"))
    assert service.attempts["q"] == 1


def test_what_was_finished_is_kept_when_one_question_fails(service: Service) -> None:
    def script(question: str, attempt: int) -> Any:
        if question == "bad":
            return (500, {"error": {"message": "no memory"}}, {})
        return said(question.upper())

    service.script = script
    system = endpoint(service, concurrency=2, retries=3, backoff=0.05)
    with pytest.raises(
        UnfinishedError, match=r"model 'tiny', question 'bad': HTTP 500: no memory \(tried 4 times\)"
    ) as e:
        system.answer(asked("a", "b", "bad", "c", "d"))
    assert isinstance(e.value, UserError)
    assert {id_: reply.text for id_, reply in e.value.replies.items()} == {"a": "A", "b": "B", "c": "C", "d": "D"}


def test_a_refusal_is_final_and_stops_the_others(service: Service) -> None:
    def script(question: str, attempt: int) -> Any:
        time.sleep(0.05)
        return (404, {"error": {"message": "no such model"}}, {}) if question == "0" else said("fine")

    service.script = script
    with pytest.raises(UnfinishedError, match=r"HTTP 404: no such model$"):
        endpoint(service, concurrency=2).answer(asked(*map(str, range(30))))
    assert service.attempts["0"] == 1 and len(service.attempts) < 10


def test_a_refused_question_may_be_allowed_by_name(service: Service) -> None:
    service.script = lambda q, _: (400, {"error": {"message": "unsafe picture"}}, {}) if q == "b" else said("fine")
    with pytest.raises(UserError, match="question 'b': HTTP 400: unsafe picture"):
        endpoint(service).answer(asked("a", "b"))
    system = endpoint(service, allow=("refused",))
    assert [reply.text for reply in system.answer(asked("a", "b", "c"))] == ["fine", "", "fine"]
    assert system.refused == 1


def test_the_key_stands_nowhere(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    service.script = lambda *_: (401, {"error": {"message": f"Incorrect API key provided: {KEY}"}}, {})
    system = endpoint(service, key_variable="MY_KEY")
    with pytest.raises(UserError, match="MY_KEY, which is set") as error:
        system.answer(asked("q"))
    assert service.headers[0][1]["Authorization"] == f"Bearer {KEY}"
    assert KEY not in str(error.value) and "***" in str(error.value)
    assert KEY not in repr(system.settings) + system.digest + system.name


def test_a_redirect_is_not_followed(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    service.script = lambda *_: (302, b"", {"Location": f"{service.url}/elsewhere"})
    with pytest.raises(UserError, match="HTTP 302"):
        endpoint(service).answer(asked("q"))
    assert [path for path, _ in service.headers] == ["/v1/chat/completions"]


@pytest.mark.parametrize("concurrency", [1, 4])
def test_so_many_are_asked_at_a_time(service: Service, concurrency: int) -> None:
    def script(question: str, attempt: int) -> Any:
        time.sleep(0.05 + 0.01 * (3 - int(question) % 4))
        return said(question)

    service.script = script
    replies = endpoint(service, concurrency=concurrency).answer(asked(*map(str, range(12))))
    assert [reply.text for reply in replies] == [str(number) for number in range(12)]  # in the order asked
    assert service.most == concurrency


def test_nobody_there() -> None:
    system = OpenAIEndpoint("http://127.0.0.1:9/v1", "m", EndpointSettings(retries=1, backoff=0.01))
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:9/v1, model 'm'.*cannot be reached.*tried 2 times"):
        system.answer(asked("q"))


def test_an_empty_picture_is_named(service: Service) -> None:
    with pytest.raises(UserError, match=r"question 'a': picture 1 is empty: its size is \(0, 4\)"):
        endpoint(service).answer([AnswerRequest("a", "?", (Image.new("RGB", (0, 4)),))])


@pytest.mark.parametrize(
    ("url", "model"),
    [("http://x", ""), ("x/v1", "m"), ("", "m"), ("ftp://x", "m"), ("http://u:p@x/v1", "m"), ("http://x/v1?k=1", "m")],
)
def test_addresses_that_will_not_do(url: str, model: str) -> None:
    with pytest.raises(UserError, match="endpoint: "):
        OpenAIEndpoint(url, model)


@pytest.mark.parametrize(
    "options", [{"concurrency": 0}, {"retries": -1}, {"timeout": 0}, {"picture_format": "gif"}, {"allow": ("all",)}]
)
def test_options_out_of_their_range(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"endpoint {next(iter(options))}: "):
        EndpointSettings(**options)


def test_settings_tell_apart_what_gives_other_answers() -> None:
    one, other = OpenAIEndpoint("http://x/v1/", "m"), OpenAIEndpoint("http://x/v1/chat/completions", "m")
    assert one.digest == other.digest and one.settings == other.settings
    assert OpenAIEndpoint("http://x/v1", "n").digest != one.digest
    hot = OpenAIEndpoint("http://x/v1", "m", EndpointSettings(temperature=1.0, concurrency=2))
    assert {key for key in one.settings if one.settings[key] != hot.settings[key]} == {"temperature"}
