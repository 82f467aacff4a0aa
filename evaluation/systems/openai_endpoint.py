"""A model behind an OpenAI-compatible endpoint answers questions about pictures, which go as data URLs."""

from __future__ import annotations

import base64
import io
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from PIL import Image

from vargpt_lightning.evaluation.base.protocols import AnswerRequest, Reply, UnfinishedError
from vargpt_lightning.utils.capacity import MOST_AT_A_TIME
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.http.calls import CallError, RetryPolicy, StoppedError, with_retries
from vargpt_lightning.utils.http.chat_endpoint import KEY_REFUSALS, REFUSALS, ChatEndpoint, read_answer

PICTURE_TOKEN = "<image>"
FORMATS = ("png", "jpeg")
LIKELIEST = 20  # the most that services tell
NOTHING = {"choices": [{"message": {"content": ""}, "logprobs": {"content": []}}]}

T = TypeVar("T")


@dataclass(frozen=True)
class EndpointSettings:
    """How an endpoint is asked.

    Args:
        concurrency: requests on their way at a time.
        retries, timeout, backoff, longest_wait: see `utils.http.calls.RetryPolicy`.
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
            if not getattr(self, key) >= least:
                raise UserError(f"endpoint {key}: {getattr(self, key)}; expected {least} or more")
        if self.concurrency > MOST_AT_A_TIME:
            raise UserError(
                f"endpoint concurrency: {self.concurrency}; expected {MOST_AT_A_TIME} or less, each is a thread"
            )
        if not self.timeout > 0:
            raise UserError(f"endpoint timeout: {self.timeout}; expected more than 0 seconds")
        if self.picture_format not in FORMATS:
            raise UserError(f"endpoint picture_format: {self.picture_format!r}; expected {' or '.join(FORMATS)}")
        if unknown := set(self.allow) - {"refused"}:
            raise UserError(f"endpoint allow: {sorted(unknown)[0]!r}; expected refused")


class OpenAIEndpoint:
    """A model of a service; implements `TextModel`.

    Args:
        url: such as http://localhost:8000/v1.
        model: its name there.
        options: how it is asked.

    Raises:
        UserError: the URL or the model is missing, or the URL holds a name, a password or a query.
    """

    def __init__(self, url: str, model: str, options: EndpointSettings | None = None) -> None:
        self.options = options or EndpointSettings()
        self.endpoint = ChatEndpoint(url, model, self.options.key_variable)
        self.url, self.name = self.endpoint.url, model
        self.batch_size = 4 * self.options.concurrency
        self.refused = 0

    @property
    def digest(self) -> str:
        """A hash of where the model is and what it is called; what its weights are, only the service knows."""
        return self.endpoint.digest

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
        return self._ask_all(requests, {}, _reply)

    def probability(self, requests: Sequence[AnswerRequest], word: str) -> list[float]:
        """How likely an answer is to begin with a word, of each request; 0 where it is not among the 20 likeliest.

        Raises:
            UnfinishedError: one got no answer, or the service tells no probabilities.
        """
        return self._ask_all(requests, {"logprobs": True, "top_logprobs": LIKELIEST}, partial(_likelihood, word=word))

    def _ask_all(self, requests: Sequence[AnswerRequest], more: Mapping[str, Any], read: Callable[[Any], T]) -> list[T]:
        stop = threading.Event()
        pool = ThreadPoolExecutor(self.options.concurrency, thread_name_prefix="endpoint")
        calls = [pool.submit(self._ask, request, stop, more, read) for request in requests]
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
                ended_ = {r.id: call.result() for r, call in zip(requests, calls, strict=True) if _finished(call)}
                done = {id_: reply for id_, reply in ended_.items() if isinstance(reply, Reply)}
                raise UnfinishedError(self._sentence(request, error), done) from error
            if error is not None and not isinstance(error, StoppedError):
                raise error
        return [call.result() for call in calls]

    def _ask(
        self, request: AnswerRequest, stop: threading.Event, more: Mapping[str, Any], read: Callable[[Any], T]
    ) -> T:
        body, own = {**self._body(request), **more}, self.options

        def call() -> T:
            return read(self.endpoint.post(body, own.timeout))

        policy = RetryPolicy(own.retries, own.timeout, own.backoff, own.longest_wait)
        try:
            return with_retries(call, policy, stop)
        except CallError as error:
            if error.status in REFUSALS and "refused" in own.allow:
                self.refused += 1
                return read(NOTHING)
            raise

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
            if error.status in KEY_REFUSALS:
                text += f"; {self.endpoint.key_hint()}"
        return self.endpoint.without_key(text)


def _reply(found: Any) -> Reply:
    said = read_answer(found)
    return Reply(said.text, finish=said.finish)


def _likelihood(found: Any, word: str) -> float:
    """The probability of a word among the likeliest first tokens. Raises CallError where none are told."""
    try:
        told = found["choices"][0]["logprobs"]["content"]
        tokens = told[0]["top_logprobs"] if told else []
        return math.fsum(math.exp(each["logprob"]) for each in tokens if each["token"].strip() == word)
    except (KeyError, IndexError, TypeError) as error:
        raise CallError("the service tells no probabilities (logprobs) of its answers", reached=True) from error


def _failure(call: Future[Any]) -> BaseException | None:
    return StoppedError() if call.cancelled() else call.exception()


def _finished(call: Future[Any]) -> bool:
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
