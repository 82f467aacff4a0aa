"""Who may come in: the token, the host that was asked for, the page that asks, the size and the time of a body."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response

from vargpt_lightning.serving.hosts import is_loopback, is_own_host, same_origin
from vargpt_lightning.serving.limits import RateLimit, RefusedRequestError
from vargpt_lightning.utils.errors import UserError

if TYPE_CHECKING:
    from vargpt_lightning.serving.metrics import ServerMetrics

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "vargpt_token"
SHORTEST_TOKEN = 16
PATHS = ("/v1/chat/completions", "/v1/images/generations", "/v1/images/edits", "/v1/models", "/health", "/metrics")
UPLOAD = "/gradio_api/upload"
REQUESTS = 256  # at the same time; more are answered with 503
STREAMS = 256  # of events that open pages listen to, which are counted apart
BODY_SECONDS = 60.0
_STREAMS = ("/gradio_api/heartbeat/", "/gradio_api/queue/data")


def error_response(error: RefusedRequestError) -> JSONResponse:
    """Return a refusal in OpenAI's form."""
    headers = {"Retry-After": str(error.wait)} if error.wait else {}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if error.status == 408:
        headers["Connection"] = "close"
    return JSONResponse({"error": error_body(error)}, error.status, headers)


def error_body(error: RefusedRequestError) -> dict[str, Any]:
    """Return what stands under `error`."""
    return {"message": str(error), "type": error.kind, "param": error.param, "code": error.code}


def check_address(host: str, token: str | None) -> None:
    """Refuse to listen at an address that others reach without a token.

    Raises:
        UserError: there is none, or one that could be guessed.
    """
    if token is not None and (len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable()):
        raise UserError(f"the token has {len(token)} characters; expected {SHORTEST_TOKEN} or more, all of them ASCII")
    if token is None and not is_loopback(host):
        raise UserError(
            f"--host {host} can be reached by others; expected a token (--token-file FILE, or VARGPT_SERVE_TOKEN)"
        )


class Gate:
    """ASGI middleware before everything else.

    With a token only `/health` is open: programs send `Authorization: Bearer TOKEN`, browsers open `/?token=TOKEN`
    once and have a cookie from then on. Without one the server listens on this machine alone, and answers only to the
    machine's own names: a page elsewhere whose name is made to point here reads nothing. Pages of other origins change
    and read nothing either way.

    Args:
        app: what is behind it.
        token: None when everyone on this machine may ask.
        body_bytes: the largest body.
        rate: of the requests to the API, and of uploads.
        metrics: counts the requests.
    """

    def __init__(self, app: App, token: str | None, body_bytes: int, rate: RateLimit, metrics: ServerMetrics) -> None:
        self.app, self.token, self.body_bytes = app, token, body_bytes
        self.rate, self.metrics = rate, metrics
        self.active = {"requests": 0, "streams": 0}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return  # there are no websockets here
        with self._counted(scope) as begin:
            await self._answer(scope, receive, send, begin)

    @contextmanager
    def _counted(self, scope: Scope) -> Iterator[Callable[[], None]]:
        """What counts a request among those that are answered, once all of it is there, until it is."""
        kind = "streams" if scope["path"].startswith(_STREAMS) else "requests"
        begun = 0

        def begin() -> None:
            nonlocal begun
            if begun:
                return
            if self.active[kind] >= (STREAMS if kind == "streams" else REQUESTS):
                text = f"{self.active[kind]} requests are being answered, as many as may be; try again later"
                raise RefusedRequestError(text, 503, "server_overloaded", wait=5)
            begun = 1
            self.active[kind] += begun

        try:
            yield begin
        finally:
            self.active[kind] -= begun

    async def _answer(self, scope: Scope, receive: Receive, send: Send, begin: Callable[[], None]) -> None:
        started = False

        async def counted(message: MutableMapping[str, Any]) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                path = scope["path"] if scope["path"] in PATHS else "page"
                self.metrics.requests.labels(path, str(message["status"])).inc()
                # Gradio would let pages of other origins on this machine read its answers.
                headers = [each for each in message["headers"] if not each[0].lower().startswith(b"access-control-")]
                message = {**message, "headers": headers}
            await send(message)

        try:
            response = self._stop(scope)
            if response is None:
                if scope["method"] in ("GET", "HEAD") and scope["path"] != "/health":
                    begin()
                await self.app(scope, self._bounded(receive, begin), counted)
                return
        except RefusedRequestError as error:
            if started:
                raise
            response = error_response(error)
        await response(scope, receive, counted)

    def _stop(self, scope: Scope) -> Response | None:
        """A response that ends the request here, None where it may go on."""
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        path, method = scope["path"], scope["method"]
        if path == "/health" and method in ("GET", "HEAD"):
            return None
        if self.token is None:
            self._check_host(scope)
        elif (response := self._check_token(scope, headers)) is not None:
            return response
        if method not in ("GET", "HEAD"):
            _check_origin(headers)
        if method == "POST" and (path.startswith("/v1/") or path == UPLOAD):
            self.rate.admit(client_of(scope))
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:20]) > self.body_bytes:
            raise self._too_large()
        return None

    def _check_host(self, scope: Scope) -> None:
        hosts = [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == b"host"]
        if len(hosts) != 1 or not is_own_host(hosts[0]):
            named = " and ".join(repr(host[:80]) for host in hosts[:2]) or "(none)"
            raise RefusedRequestError(f"the host {named} is not this machine", 421, "wrong_host")

    def _check_token(self, scope: Scope, headers: dict[str, str]) -> Response | None:
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._equal(bearer.strip()):
            return None
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            cookie = None
        if cookie is not None and self._equal(cookie.value):
            return None
        given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
        if scope["path"] == "/" and self._equal(given):
            response = RedirectResponse("/", 303, {"Referrer-Policy": "no-referrer", "Cache-Control": "no-store"})
            response.set_cookie(COOKIE, given, httponly=True, samesite="strict")
            return response
        if scope["path"] == "/":
            return PlainTextResponse("This page needs its token: open /?token=TOKEN once.\n", 401)
        raise RefusedRequestError(
            "a valid token is missing; expected Authorization: Bearer TOKEN", 401, "invalid_api_key"
        )

    def _equal(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), (self.token or "").encode()) and bool(self.token)

    def _bounded(self, receive: Receive, begin: Callable[[], None]) -> Receive:
        """Bodies end where they become too long, also those that do not say how long they are, or take too long.

        A request whose body is there is counted by `begin`: one that is being sent keeps no other out.
        """
        size, more = 0, True
        until = asyncio.get_running_loop().time() + BODY_SECONDS

        async def bounded() -> MutableMapping[str, Any]:
            nonlocal size, more
            if not more:  # what comes now is that the client leaves, whenever it does
                return await receive()
            try:
                async with asyncio.timeout_at(until):
                    message = await receive()
            except TimeoutError as error:
                text = f"the body took longer than {BODY_SECONDS:g} s"
                raise RefusedRequestError(text, 408, "timeout") from error
            more = bool(message.get("more_body", False))
            size += len(message.get("body", b""))
            if size > self.body_bytes:
                raise self._too_large()
            if message["type"] == "http.request" and not more:
                begin()
            return message

        return bounded

    def _too_large(self) -> RefusedRequestError:
        return RefusedRequestError(f"the body has more than {self.body_bytes} bytes", 413, "too_large")


def _check_origin(headers: dict[str, str]) -> None:
    """Refuse what a page of another origin makes a browser send; programs say nothing of an origin.

    Where the browser says itself how the two are related that counts: a proxy may have changed the host.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        own = site in ("same-origin", "none")
    else:
        own = origin is None or same_origin(origin, headers.get("host", ""))
    if not own:
        raise RefusedRequestError(f"a request of a page elsewhere ({(origin or site or '')[:80]})", 403, "wrong_origin")


def client_of(scope: Scope) -> str:
    """Return the address that a request comes from."""
    return (scope.get("client") or ("unknown",))[0]
