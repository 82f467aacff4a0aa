"""A model behind an OpenAI-compatible endpoint (`POST URL/chat/completions`): pictures go as data URLs.

The key comes from an environment variable. It is sent in the Authorization header and appears nowhere else: not in
settings, not in errors, not in files.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from vargpt_lightning.errors import UserError
from vargpt_lightning.evaluation.adapters.http_calls import (
    CallError,
    Patience,
    StoppedError,
    opener,
    post_json,
    with_retries,
)
from vargpt_lightning.evaluation.protocols import AnswerRequest, Reply, UnfinishedError

PATH = "/chat/completions"
PICTURE_TOKEN = "<image>"
REFUSALS = (400, 413, 422)
FORMATS = ("png", "jpeg")


@dataclass(frozen=True)
class EndpointSettings:
    """How an endpoint is asked.

    Args:
        concurrency: requests on their way at a time.
        retries, timeout, backoff, longest_wait: see `http_calls.Patience`.
        max_new_tokens: of an answer whose request names no length.
        temperature: 0 asks for the likeliest token.
        key_variable: the environment variable with the key; unset, no key is sent.
        length_field: what the service calls the length: max_tokens, or max_completion_tokens.
        picture_format: png (exact), or jpeg (quality 95), which is smaller.
        system_prompt: said before the question; empty says nothing.
        extra: further fields of the request's body.
        allow: ("refused",) takes a question that the service refuses (HTTP 400, 413, 422) as answered with
            nothing; otherwise that is an error.

    Raises:
        UserError: a value out of its range.
    """

    concurrency: int = 8
    retries: int = 5
    timeout: float = 120.0
    backoff: float = 1.0
    longest_wait: float = 120.0
    max_new_tokens: int = 256
    temperature: float = 0.0
    key_variable: str = "OPENAI_API_KEY"
    length_field: str = "max_tokens"
    picture_format: str = "png"
    system_prompt: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
    allow: Sequence[str] = ()

    def __post_init__(self) -> None:
        for key, least in {"concurrency": 1, "retries": 0, "backoff": 0, "max_new_tokens": 1, "temperature": 0}.items():
            if getattr(self, key) < least:
                raise UserError(f"endpoint {key}: {getattr(self, key)}; expected {least} or more")
        if self.timeout <= 0:
            raise UserError(f"endpoint timeout: {self.timeout}; expected more than 0 seconds")
        if self.picture_format not in FORMATS:
            raise UserError(f"endpoint picture_format: {self.picture_format!r}; expected {' or '.join(FORMATS)}")
        if unknown := set(self.allow) - {"refused"}:
            raise UserError(f"endpoint allow: {sorted(unknown)[0]!r}; expected refused")


class OpenAIEndpoint:
    """A model of a service; implements `Answerer`.

    Args:
        url: such as http://localhost:8000/v1.
        model: its name there.
        options: how it is asked.

    Raises:
        UserError: the URL or the model is missing, or the URL holds a name, a password or a query.
    """

    def __init__(self, url: str, model: str, options: EndpointSettings | None = None) -> None:
        self.options = options or EndpointSettings()
        self.url, self.name = _checked(url, model).rstrip("/").removesuffix(PATH), model
        self.batch_size = 4 * self.options.concurrency
        self.refused = 0
        self._open = opener(self.url)

    @property
    def digest(self) -> str:
        """A hash of where the model is and what it is called; what its weights are, only the service knows."""
        return hashlib.sha256(f"{self.url}\0{self.name}".encode()).hexdigest()[:16]

    @property
    def settings(self) -> dict[str, Any]:
        """All that an answer depends on and that is known here; no key."""
        names = ("max_new_tokens", "temperature", "picture_format", "system_prompt", "extra")
        return {"adapter": "openai", "url": self.url, **{name: getattr(self.options, name) for name in names}}

    def answer(self, requests: Sequence[AnswerRequest]) -> list[Reply]:
        """Ask all questions, `concurrency` at a time.

        Raises:
            UnfinishedError: one got no answer after the last retry; it holds the replies of those that did.
        """
        stop = threading.Event()
        pool = ThreadPoolExecutor(self.options.concurrency, thread_name_prefix="endpoint")
        calls = [pool.submit(self._ask, request, stop) for request in requests]
        ended = False
        try:
            wait(calls, return_when=FIRST_EXCEPTION)
            ended = True
        finally:
            # Those on their way come to their end, those that wait for a retry or their turn do not; after a signal
            # nothing is waited for.
            stop.set()
            pool.shutdown(wait=ended, cancel_futures=True)
        failures = [(request, _failure(call)) for request, call in zip(requests, calls, strict=True)]
        for request, error in failures:
            if isinstance(error, (CallError, UserError)):
                done = {r.id: call.result() for r, call in zip(requests, calls, strict=True) if _finished(call)}
                raise UnfinishedError(self._sentence(request, error), done) from error
            if error is not None and not isinstance(error, StoppedError):
                raise error
        return [call.result() for call in calls]

    def _ask(self, request: AnswerRequest, stop: threading.Event) -> Reply:
        body = json.dumps(self._body(request)).encode()
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if key := self._key():
            headers["Authorization"] = f"Bearer {key}"

        def call() -> Reply:
            return _reply(post_json(self._open, self.url + PATH, body, headers, self.options.timeout))

        own = self.options
        patience = Patience(own.retries, own.timeout, own.backoff, own.longest_wait)
        try:
            return with_retries(call, patience, stop)
        except CallError as error:
            if error.status in REFUSALS and "refused" in own.allow:
                self.refused += 1
                return Reply("")
            raise

    def _key(self) -> str:
        return os.environ.get(self.options.key_variable, "").strip()

    def _body(self, request: AnswerRequest) -> dict[str, Any]:
        content = _content(request, self.options.picture_format)
        before = [{"role": "system", "content": self.options.system_prompt}] if self.options.system_prompt else []
        return {
            "model": self.name,
            "messages": [*before, {"role": "user", "content": content}],
            "temperature": self.options.temperature,
            self.options.length_field: request.max_new_tokens or self.options.max_new_tokens,
            **self.options.extra,
        }

    def _sentence(self, request: AnswerRequest, error: Exception) -> str:
        """What went wrong, without the key: services repeat it in their refusals."""
        text = str(error)
        if isinstance(error, CallError):
            text = f"{self.url}, model {self.name!r}, question {request.id!r}: {text}"
            if error.status in (401, 403):
                known = "is set" if self._key() else "is not set"
                text += f"; the key is taken from {self.options.key_variable}, which {known}"
        return text.replace(key, "***") if (key := self._key()) else text


def _checked(url: str, model: str) -> str:
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine or not model:
        raise UserError("endpoint: expected openai:URL#model, such as openai:http://localhost:8000/v1#llava")
    if parts.username or parts.password or parts.query:
        raise UserError("endpoint: the URL holds a name, a password or a query; expected the key in the environment")
    return url


def _failure(call: Future[Reply]) -> BaseException | None:
    return StoppedError() if call.cancelled() else call.exception()


def _finished(call: Future[Reply]) -> bool:
    return call.done() and _failure(call) is None


def _content(request: AnswerRequest, picture_format: str) -> list[dict[str, Any]]:
    """The pictures, then the question; or the pictures where the question holds a token for each."""
    count = len(request.pictures)
    if count and request.prompt.count(PICTURE_TOKEN) == count:
        texts = request.prompt.split(PICTURE_TOKEN)
    else:
        texts = [""] * count + [request.prompt]
    parts: list[dict[str, Any]] = []
    for number, text in enumerate(texts):
        if number:
            parts.append({"type": "image_url", "image_url": {"url": _data_url(request, number - 1, picture_format)}})
        if text.strip():
            parts.append({"type": "text", "text": text})
    return parts


def _data_url(request: AnswerRequest, number: int, picture_format: str) -> str:
    picture: Image.Image = request.pictures[number]
    if 0 in picture.size:
        raise UserError(f"question {request.id!r}: picture {number + 1} is empty: its size is {picture.size}")
    file = io.BytesIO()
    picture.convert("RGB").save(
        file, format=picture_format.upper(), **({"quality": 95} if picture_format == "jpeg" else {})
    )
    return f"data:image/{picture_format};base64,{base64.b64encode(file.getvalue()).decode()}"


def _reply(found: Any) -> Reply:
    """The answer in what came back; a body of another form is an error that may be gone the next time."""
    try:
        choice = found["choices"][0]
        message = choice["message"]
        content = message["content"] if "content" in message else message["refusal"]
    except (KeyError, IndexError, TypeError) as error:
        raise CallError(f"malformed: {json.dumps(found)[:200]}") from error
    if isinstance(content, list):
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    if content is None:  # a refusal, or a length that was used up by thinking
        content = message.get("refusal") or ""
    if not isinstance(content, str):
        raise CallError(f"malformed: the content is {json.dumps(content)[:100]}")
    finish = choice.get("finish_reason")
    return Reply(content, finish=finish if finish in ("stop", "length") else "")
