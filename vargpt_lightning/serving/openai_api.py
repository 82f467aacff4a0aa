"""OpenAI's API over an engine: chat with pictures in both directions, and drawing.

Text of an answer stands in `message.content`, its pictures as data URLs in `message.images` (as other servers of models
that draw do), and their order in `message.parts`. While an answer is streamed, a picture comes in `delta.images`.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from vargpt_lightning.inference.assistant import Conversation
from vargpt_lightning.inference.sizes import AUTO, size_like, size_names
from vargpt_lightning.models.generation.answers import Answer, GenerationSettings, PicturePart
from vargpt_lightning.serving import openai_messages, openai_requests
from vargpt_lightning.serving.engine import Drawn, Engine, EngineRequest, Failed, Finished, ImagePreview, TextDelta
from vargpt_lightning.serving.gate import PATHS, error_body, error_response
from vargpt_lightning.serving.incoming_pictures import read_picture
from vargpt_lightning.serving.limits import RefusedRequestError, refusal
from vargpt_lightning.serving.metrics import ServerMetrics
from vargpt_lightning.serving.openai_requests import ChatRequest, DrawRequest
from vargpt_lightning.serving.streams import Stream

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

FINISH = {"end": "stop", "picture": "stop", "length": "length", "stop": "stop", "stopped": "stop"}
NOT_BUILT = ("/v1/images/variations",)
AT_ONCE = 4  # requests whose pictures are decoded at the same time: each may take a hundred megabytes for a moment


def png(image: Image.Image) -> str:
    """Return a picture as PNG in base64."""
    content = io.BytesIO()
    image.save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode()


def picture_entry(image: Image.Image) -> dict[str, Any]:
    """Return a picture as a message has it."""
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{png(image)}"}}


class OpenAIApi:
    """The routes.

    Args:
        engine: answers.
        metrics: is shown at /metrics.
        name: what the model is called.
        remote_pictures: whether pictures are fetched from public addresses.
    """

    def __init__(self, engine: Engine, metrics: ServerMetrics, name: str, remote_pictures: bool = False) -> None:
        self.engine, self.metrics, self.name, self.remote = engine, metrics, name, remote_pictures
        self.limits, self.assistant = engine.limits, engine.assistant
        self.created = int(time.time())
        self.decoding = asyncio.Semaphore(AT_ONCE)

    def routes(self) -> list[Route]:
        """Return all routes."""
        return [
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/images/generations", self.draw, methods=["POST"]),
            Route("/v1/images/edits", self.edit, methods=["POST"]),
            Route("/v1/models", self.models),
            Route("/v1/models/{name:path}", self.model),
            Route("/health", self.health),
            Route("/metrics", self.show_metrics),
            *(Route(path, not_built, methods=["POST"]) for path in NOT_BUILT),
        ]

    async def health(self, request: Request) -> Response:
        """Whether answers are made."""
        state: dict[str, Any] = {"status": "ok" if self.engine.alive else "stopped", "model": self.name}
        state |= {"waiting": self.engine.waiting, "running": self.engine.running}
        return JSONResponse(state, 200 if self.engine.alive else 503)

    async def show_metrics(self, request: Request) -> Response:
        """For Prometheus."""
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def models(self, request: Request) -> Response:
        """The one model."""
        return JSONResponse({"object": "list", "data": [self._model()]})

    async def model(self, request: Request) -> Response:
        """The one model by its name."""
        self._check_model(request.path_params["name"])
        return JSONResponse(self._model())

    def _model(self) -> dict[str, Any]:
        return {"id": self.name, "object": "model", "created": self.created, "owned_by": "vargpt-lightning"}

    def _check_model(self, name: str | None) -> None:
        if name is not None and name != self.name:
            raise RefusedRequestError(
                f"there is no model {name[:80]!r}; there is {self.name!r}", 404, "model_not_found", "model"
            )

    async def chat(self, request: Request) -> Response:
        """Answer a conversation."""
        body = await _body(request)
        async with self.decoding:
            asked, tickets = await asyncio.to_thread(self._chat_tickets, body)
        del body
        stream = Stream.of(tickets)
        self.engine.submit(tickets)
        head: dict[str, Any] = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": self.name}
        head |= openai_requests.told_parts(self.assistant, tickets[0].settings)
        if asked.stream:
            usage = bool(asked.stream_options and asked.stream_options.include_usage)
            return _sse(self._chat_chunks(stream, head, usage), stream)
        answers = await _while_connected(request, stream)
        choices = [_choice(number, answer) for number, answer in enumerate(answers)]
        whole = {**head, "object": "chat.completion", "choices": choices, "usage": _usage(tickets, answers)}
        return JSONResponse({**whole, "seed": tickets[0].settings.seed})

    def _chat_tickets(self, body: bytes) -> tuple[ChatRequest, list[EngineRequest]]:
        asked: ChatRequest = openai_requests.parse(ChatRequest, body)
        self._check_model(asked.model)
        conversation = openai_messages.conversation(self.assistant, asked.messages, self.limits, self.remote)
        asked.messages = []  # a picture's base64 need not stay as long as the answer takes
        how = openai_requests.settings(self.assistant, asked, self.limits)
        sketches = bool(asked.stream and asked.sketches)
        rows = range(openai_requests.answers_wanted(asked, self.limits))
        return asked, [EngineRequest(conversation, how, row, sketches) for row in rows]

    async def _chat_chunks(self, stream: Stream, head: dict[str, Any], usage: bool) -> AsyncIterator[str]:
        # Where the last piece counts the tokens, the others say that they do not.
        head = {**head, "object": "chat.completion.chunk", **({"usage": None} if usage else {})}
        ended: list[Answer] = []
        # The texts of an answer are lines of its content: the next one begins with a line break.
        written, after_picture = (dict.fromkeys(range(len(stream.tickets)), False) for _ in range(2))

        def chunk(number: int, delta: dict[str, Any], finish: str | None = None) -> str:
            choice = {"index": number, "delta": delta, "logprobs": None, "finish_reason": finish}
            return _data({**head, "choices": [choice]})

        for number in range(len(stream.tickets)):
            yield chunk(number, {"role": "assistant", "content": ""})
        async for number, event in stream.events():
            if isinstance(event, TextDelta):
                begins = written[number] and after_picture[number]
                written[number], after_picture[number] = True, False
                yield chunk(number, {"content": f"\n{event.text}" if begins else event.text})
            elif isinstance(event, ImagePreview):
                entry = await asyncio.to_thread(picture_entry, event.image)
                yield chunk(number, {"sketch": {**entry, "scale": event.number, "scales": event.total}})
            elif isinstance(event, Drawn):
                after_picture[number] = True
                yield chunk(number, {"images": [await asyncio.to_thread(picture_entry, event.part.image)]})
            elif isinstance(event, Finished):
                ended.append(event.answer)
                yield chunk(number, {}, FINISH[event.answer.finished])
            else:
                raise event.error
        if usage:
            yield _data({**head, "choices": [], "usage": _usage(stream.tickets, ended)})

    async def draw(self, request: Request) -> Response:
        """Draw pictures."""
        body = await _body(request)
        asked, tickets = await asyncio.to_thread(self._draw_tickets, body)
        return await self._draw(request, asked, tickets)

    async def edit(self, request: Request) -> Response:
        """Draw a picture that is shown, changed as the prompt says."""
        body = await request.body()
        async with self.decoding:
            kind = request.headers.get("content-type", "")
            asked, tickets = await asyncio.to_thread(self._edit_tickets, body, kind)
        del body
        return await self._draw(request, asked, tickets)

    async def _draw(self, request: Request, asked: DrawRequest, tickets: list[EngineRequest]) -> Response:
        stream = Stream.of(tickets)
        self.engine.submit(tickets)
        if asked.stream:
            return _sse(self._draw_events(stream, asked.partial_images or 0), stream)
        answers = await _while_connected(request, stream)
        data = [{"b64_json": await asyncio.to_thread(png, _drawn(answer))} for answer in answers]
        whole = {"created": int(time.time()), "data": data, "output_format": "png", "size": self._size(tickets)}
        whole |= openai_requests.told_parts(self.assistant, tickets[0].settings)
        return JSONResponse({**whole, "seed": tickets[0].settings.seed, "usage": self._draw_usage(tickets, answers)})

    def _draw_tickets(self, body: bytes) -> tuple[DrawRequest, list[EngineRequest]]:
        asked: DrawRequest = openai_requests.parse(DrawRequest, body)
        return asked, self._picture_tickets(asked, {}, openai_requests.settings(self.assistant, asked, self.limits))

    def _edit_tickets(self, body: bytes, content_type: str) -> tuple[DrawRequest, list[EngineRequest]]:
        asked, files = openai_requests.parse_edit(body, content_type)
        if len(files) > self.limits.pictures:
            text = f"{len(files)} pictures; expected {self.limits.pictures} at most"
            raise RefusedRequestError(text, code="too_many_images", param="image")
        images = [read_picture(data, self.limits, "image") for data in files]
        how = openai_requests.settings(self.assistant, asked, self.limits)
        if asked.size in (None, AUTO):  # as the picture that is changed
            how = replace(how, size=size_like(images[0], self.assistant.model.config.tokenizer))
        seen = {f"picture-{number}": self.assistant.see(image) for number, image in enumerate(images)}
        return asked, self._picture_tickets(asked, seen, how)

    def _picture_tickets(
        self, asked: DrawRequest, seen: Mapping[str, Tensor], how: GenerationSettings
    ) -> list[EngineRequest]:
        self._check_model(asked.model)
        openai_messages.check_letters(len(asked.prompt), self.limits, "prompt")
        if not asked.prompt.strip():
            raise RefusedRequestError("the prompt is empty; expected what to draw", param="prompt")
        rows = range(openai_requests.answers_wanted(asked, self.limits))
        if asked.stream and len(rows) > 1:
            raise RefusedRequestError("n: one picture at most can be streamed", code="invalid_value", param="n")
        conversation = Conversation()
        conversation.ask(asked.prompt, seen)
        sketches = bool(asked.stream and asked.partial_images)
        return [EngineRequest(conversation, how, row, sketches, draw=True) for row in rows]

    def _size(self, tickets: Sequence[EngineRequest]) -> str:
        return size_names(self.assistant.model.config.tokenizer)[tickets[0].settings.size]

    def _draw_usage(self, tickets: Sequence[EngineRequest], answers: Sequence[Answer]) -> dict[str, Any]:
        read, made = tickets[0].prompt_tokens, sum(len(answer.token_ids) for answer in answers)
        seen = len(tickets[0].conversation.pictures) * self.assistant.model.config.vision.patches
        details = {"text_tokens": read - seen, "image_tokens": seen}
        total = {"input_tokens": read, "output_tokens": made, "total_tokens": read + made}
        return {**total, "input_tokens_details": details}

    async def _draw_events(self, stream: Stream, partial: int) -> AsyncIterator[str]:
        about = {"size": self._size(stream.tickets), "quality": "auto", "background": "opaque", "output_format": "png"}
        total = self.assistant.model.schedule.num_scales
        shown = {round(total * (place + 1) / (partial + 1)) for place in range(partial)} - {0, total}
        sent, named = 0, "image_edit" if stream.tickets[0].conversation.pictures else "image_generation"
        async for _, event in stream.events():
            if isinstance(event, ImagePreview) and event.number in shown:
                kind = f"{named}.partial_image"
                entry = {"type": kind, "partial_image_index": sent, "created_at": int(time.time()), **about}
                yield _data({**entry, "b64_json": await asyncio.to_thread(png, event.image)}, kind)
                sent += 1
            elif isinstance(event, Finished):
                kind = f"{named}.completed"
                content = await asyncio.to_thread(png, _drawn(event.answer))
                usage = self._draw_usage(stream.tickets, [event.answer])
                entry = {"type": kind, "created_at": int(time.time()), **about, "usage": usage}
                entry |= openai_requests.told_parts(self.assistant, stream.tickets[0].settings)
                yield _data({**entry, "b64_json": content}, kind)
            elif isinstance(event, Failed):
                raise event.error


async def _body(request: Request) -> bytes:
    # A page elsewhere can make a browser post text, but not JSON.
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RefusedRequestError("Content-Type is not application/json", 415, "unsupported_media_type")
    return await request.body()


async def _while_connected(request: Request, stream: Stream) -> list[Answer]:
    """Wait for the answers, and stop making them when the client leaves."""
    waiting = asyncio.create_task(stream.answers())
    leaving = asyncio.create_task(_left(request))
    try:
        await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            raise ClientDisconnect
        return waiting.result()
    finally:
        stream.cancel()  # without effect on what has ended; the rest of a request of which one answer failed
        waiting.cancel()
        leaving.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _choice(number: int, answer: Answer) -> dict[str, Any]:
    images: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    for part in answer.parts:
        if isinstance(part, PicturePart):
            parts.append({"type": "image", "image": len(images)})
            images.append(picture_entry(part.image))
        else:
            parts.append({"type": "text", "text": part.text})
    message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
    message |= {"images": images, "parts": parts} if images else {}
    return {"index": number, "message": message, "logprobs": None, "finish_reason": FINISH[answer.finished]}


def _drawn(answer: Answer) -> Image.Image:
    if not answer.pictures:
        raise RefusedRequestError("the drawing was stopped", 503, "stopping", wait=10)
    return answer.pictures[0].image


def _usage(tickets: Sequence[EngineRequest], answers: Sequence[Answer]) -> dict[str, int]:
    read, made = tickets[0].prompt_tokens, sum(len(answer.token_ids) for answer in answers)
    return {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}


def _data(content: dict[str, Any], event: str | None = None) -> str:
    return (f"event: {event}\n" if event else "") + f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


def _sse(pieces: AsyncIterator[str], stream: Stream) -> StreamingResponse:
    async def guarded() -> AsyncIterator[str]:
        try:
            async for piece in pieces:
                yield piece
            yield "data: [DONE]\n\n"
        except Exception as error:  # the status is sent already: the error goes into the stream
            yield _data({"error": error_body(refusal(error))})

    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return _EventStream(guarded(), headers, stream)


class _EventStream(StreamingResponse):
    """Server-sent events; a client that leaves stops the answers, even one that leaves before the first event."""

    def __init__(self, pieces: AsyncIterator[str], headers: dict[str, str], stream: Stream) -> None:
        super().__init__(pieces, media_type="text/event-stream", headers=headers)
        self.stream = stream

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.stream.cancel()


async def not_built(request: Request) -> Response:
    """Name what OpenAI has and this model cannot do."""
    text = f"{request.url.path} is not built: ask for a change in words at /v1/images/edits"
    raise RefusedRequestError(text, 501, "not_implemented")


async def refuse_path(request: Request, error: Exception) -> Response:
    """Turn the router's exceptions into OpenAI's words: a path that there is not, or a method that it has not."""
    assert isinstance(error, HTTPException)
    asked = f"{request.method} {request.url.path[:200]}"
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        refused = RefusedRequestError(f"there is no {asked}; expected {allowed}", 405, "method_not_supported")
    elif error.status_code == 404:
        paths = ", ".join(path for path in PATHS if path.startswith("/v1/"))
        refused = RefusedRequestError(f"there is no {asked}; expected one of {paths}", 404, "unknown_url")
    else:
        refused = RefusedRequestError(str(error.detail), error.status_code)
    response = error_response(refused)
    response.headers.update(error.headers or {})
    return response


async def refuse(request: Request, error: Exception) -> Response:
    """Turn an exception of a route into a response."""
    if isinstance(error, ClientDisconnect):
        return Response(status_code=499)
    return error_response(refusal(error))
