"""What reaches Gradio: the few paths that the page needs, and of a request's data only what its components may hold.

Gradio reads, moves, caches and shows the files that a request names. None is ever named to it by a client: uploads are
taken here and known by names that we gave, and pictures are served from here.
"""

from __future__ import annotations

import json
import math
import re
import secrets
from collections.abc import Mapping, Sequence
from email.message import Message
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import gradio as gr
from starlette.datastructures import MutableHeaders, UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from vargpt_lightning.serving.gate import App, Receive, Scope, Send, client_of, error_response
from vargpt_lightning.serving.limits import Limits, RefusedRequestError
from vargpt_lightning.serving.page_files import PageFiles

if TYPE_CHECKING:
    from gradio.blocks import BlockFunction

COOKIE = "vargpt_page"
LONGEST_BOUNDARY = 512
_API = "/gradio_api"
_GET = re.compile(
    r"/|/config/?|/theme\.css|/favicon\.ico|/manifest\.json|/robots\.txt|/(assets|static|svelte)/[\w./@+-]+"
    rf"|{_API}/(theme\.css|startup-events|queue/data|heartbeat/\w+)"
)
_POST = (f"{_API}/cancel", f"{_API}/reset")
_JOIN = f"{_API}/queue/join"
_FILE = f"{_API}/file="
_WORD = re.compile(r"[\w-]{1,64}")
_COOKIE = re.compile(r"[\w-]{32}")
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
JOIN_BYTES = 2**20


def owner_of(client: str, cookie: str | None) -> str:
    """Return whose a request's pictures are: the browser's with this cookie, or else the address's."""
    return f"browser {cookie}" if cookie and _COOKIE.fullmatch(cookie) else f"address {client}"


class PageGuard:
    """ASGI middleware before the page.

    Args:
        app: Gradio's.
        functions: of the page, by their numbers.
        files: the pictures that clients have uploaded or been shown.
        limits: of an upload.
    """

    def __init__(self, app: App, functions: Mapping[int, BlockFunction], files: PageFiles, limits: Limits) -> None:
        self.app, self.functions, self.files, self.limits = app, functions, files, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        cookie = request.cookies.get(COOKIE)
        owner = owner_of(client_of(scope), cookie)
        path, reads = scope["path"], scope["method"] in ("GET", "HEAD")
        try:
            if reads and path.startswith(_FILE):
                response: Response = self._picture(owner, path.removeprefix(_FILE))
            elif scope["method"] == "POST" and path == f"{_API}/upload":
                response = await self._upload(request, owner)
            elif scope["method"] == "POST" and path == _JOIN:
                body = self._join(await _body(request, JOIN_BYTES), owner)
                await self.app(*_with_body(_plain(scope), receive, body), send)
                return
            elif (reads and _GET.fullmatch(path) and ".." not in path) or (scope["method"] == "POST" and path in _POST):
                named = _with_cookie(send) if path == "/" and owner[:7] != "browser" else send
                await self.app(_plain(scope), receive, named)
                return
            else:
                raise RefusedRequestError(f"the page has no {scope['method']} {path[:200]}", 404, "unknown_url")
        except RefusedRequestError as error:
            response = error_response(error)
        await response(scope, receive, send)

    def _picture(self, owner: str, name: str) -> Response:
        """A picture that was uploaded or drawn for this client."""
        folder, _, last = name.rpartition("/")
        if folder not in ("", str(self.files.folder)):
            raise RefusedRequestError("there is no such picture", 404, "file_not_found")
        plain = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox"}
        return FileResponse(self.files.path(owner, last), headers={"Cache-Control": "private", **plain})

    async def _upload(self, request: Request, owner: str) -> Response:
        """Keep the files of a form and return the names under which the page knows them."""
        body = _Ending(request.receive)
        request = Request(request.scope, body)
        try:
            form = await request.form(max_files=self.limits.pictures, max_fields=8)
        except MultiPartException as error:
            raise RefusedRequestError(f"no form of files ({error.message})", code="invalid_upload") from error
        try:
            uploads = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
            if not uploads or not body.ends_with(request.headers.get("content-type", "")):
                found = f"cut off after {len(uploads)} whole files" if uploads else "it holds no file"
                text = (
                    f"no form of files ({found}); expected multipart/form-data with a picture, to its closing boundary"
                )
                raise RefusedRequestError(text, code="invalid_upload")
            most = self.limits.picture_bytes
            if large := next((one for one in uploads if (one.size or 0) > most), None):
                text = f"a picture has {large.size} bytes; expected {most} at most"
                raise RefusedRequestError(text, 413, "too_large")
            names = [self.files.add(owner, await one.read(), _suffix(one.filename or "")) for one in uploads]
        finally:
            await form.close()
        return JSONResponse(names)

    def _join(self, body: bytes, owner: str) -> bytes:
        """A call of one of the page's functions, made anew of what its components may hold."""
        try:
            asked = json.loads(body)
            number, session, data = asked["fn_index"], asked["session_hash"], asked["data"]
            function = self.functions[number]
            valid = isinstance(number, int) and _WORD.fullmatch(session) and len(data) == len(function.inputs)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise RefusedRequestError("no request of this page", code="invalid_request") from error
        if not valid:
            raise RefusedRequestError("no request of this page", code="invalid_request")
        names = [name for part in data for name in self._names(part, owner)]
        trigger = asked.get("trigger_id")
        clean = {
            "fn_index": number,
            "session_hash": session,
            "trigger_id": trigger if isinstance(trigger, int) else None,
            "event_data": None,
            "data": [_value(part, block, names) for part, block in zip(data, function.inputs, strict=True)],
        }
        return json.dumps(clean).encode()

    def _names(self, part: Any, owner: str) -> list[str]:
        """The names of the pictures in a message; each must be this client's."""
        files = part.get("files") or [] if isinstance(part, dict) else []
        if not isinstance(files, list) or len(files) > self.limits.pictures:
            raise RefusedRequestError(f"expected {self.limits.pictures} pictures at most", code="too_many_images")
        names = [str(file.get("path")) if isinstance(file, dict) else "" for file in files]
        for name in names:
            self.files.path(owner, name)  # which there is for what was uploaded alone
        return names


class _Ending:
    """Receives a request and remembers how its body ends: the reader of forms takes one that is cut off for whole."""

    def __init__(self, receive: Receive) -> None:
        self.receive, self.last = receive, b""

    async def __call__(self) -> Any:
        message = await self.receive()
        self.last = (self.last + message.get("body", b""))[-LONGEST_BOUNDARY:]
        return message

    def ends_with(self, content_type: str) -> bool:
        """Whether the body ended with the boundary that closes the form."""
        header = Message()
        header["Content-Type"] = content_type
        boundary = header.get_boundary()
        return boundary is not None and self.last.rstrip().endswith(f"--{boundary}--".encode("latin-1", "replace"))


def _value(part: Any, block: Any, names: Sequence[str]) -> Any:
    """What a component is given: a message without its files, their names, numbers in their range, and nothing else."""
    if isinstance(block, gr.MultimodalTextbox):
        text = part.get("text") if isinstance(part, dict) else None
        return {"text": text if isinstance(text, str) else "", "files": []}
    if isinstance(block, gr.JSON):
        return list(names)
    if isinstance(block, gr.State):
        return None
    if isinstance(block, gr.Textbox):
        return part if isinstance(part, str) else ""
    if isinstance(block, gr.Dropdown):
        values = [value for _, value in block.choices]
        if part not in values:
            expected = f"expected one of {', '.join(map(str, values))}"
            raise RefusedRequestError(f"{block.label}: got {str(part)[:40]!r}, {expected}", code="invalid_value")
        return part
    if not isinstance(block, gr.Slider | gr.Number):
        raise RefusedRequestError("no request of this page", code="invalid_request")
    if part is None and isinstance(block, gr.Number):
        return block.minimum
    number = isinstance(part, int | float) and not isinstance(part, bool)
    if not number or not math.isfinite(part) or not block.minimum <= part <= block.maximum:
        expected = f"expected a number from {block.minimum:g} to {block.maximum:g}"
        raise RefusedRequestError(f"{block.label}: got {str(part)[:40]}, {expected}", code="invalid_value")
    return part


def _suffix(name: str) -> str:
    """The ending of a file's name, where it is a picture's; what is in the file is looked at later."""
    ending = name[name.rfind(".") :].lower()
    return ending if ending in _SUFFIXES else ".png"


async def _body(request: Request, most: int) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > most:
            raise RefusedRequestError(f"the body has more than {most} bytes", 413, "too_large")
    return bytes(body)


def _plain(scope: Scope) -> Scope:
    """The request without what only Gradio's own servers say to each other, and with no query but the tab's name."""
    headers = [each for each in scope["headers"] if not each[0].lower().startswith(b"x-gradio-")]
    asked = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("session_hash", [""])[0]
    query = f"session_hash={asked}" if _WORD.fullmatch(asked) else ""
    return {**scope, "headers": headers, "query_string": query.encode()}


def _with_body(scope: Scope, receive: Receive, body: bytes) -> tuple[Scope, Receive]:
    """The request with another body."""
    headers = [each for each in scope["headers"] if each[0].lower() not in (b"content-length", b"content-type")]
    headers += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    given = False

    async def again() -> Any:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return {**scope, "headers": headers}, again


def _with_cookie(send: Send) -> Send:
    """Give the browser a name of its own."""
    value = f"{COOKIE}={secrets.token_urlsafe(24)}; Path=/; HttpOnly; SameSite=Strict"

    async def named(message: Any) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).append("Set-Cookie", value)
        await send(message)

    return named
