"""Who may come in: the token, the host that was asked for, the size of a body, and the errors of all of these."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response

from vargpt_lightning.errors import UserError
from vargpt_lightning.serving.limits import RateLimit, RefusedRequestError

if TYPE_CHECKING:
    from vargpt_lightning.serving.metrics import ServerMetrics

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "vargpt_token"
SHORTEST_TOKEN = 16
_PATHS = ("/v1/chat/completions", "/v1/images/generations", "/v1/models", "/health", "/metrics")


def error_response(error: RefusedRequestError) -> JSONResponse:
    """Return a refusal in OpenAI's form."""
    headers = {"Retry-After": str(error.wait)} if error.wait else {}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse({"error": error_body(error)}, error.status, headers)


def error_body(error: RefusedRequestError) -> dict[str, Any]:
    """Return what stands under `error`."""
    return {"message": str(error), "type": error.kind, "param": error.param, "code": error.code}


def is_loopback(host: str) -> bool:
    """Whether an address to listen at can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


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
    machine's own names: a page elsewhere whose name is made to point here reads nothing.

    Args:
        app: what is behind it.
        token: None when everyone on this machine may ask.
        body_bytes: the largest body.
        rate: of the requests to the API.
        metrics: counts the requests.
    """

    def __init__(self, app: App, token: str | None, body_bytes: int, rate: RateLimit, metrics: ServerMetrics) -> None:
        self.app, self.token, self.body_bytes = app, token, body_bytes
        self.rate, self.metrics = rate, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return  # there are no websockets here
        started = False

        async def counted(message: MutableMapping[str, Any]) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                path = scope["path"] if scope["path"] in _PATHS else "page"
                self.metrics.requests.labels(path, str(message["status"])).inc()
            await send(message)

        try:
            response = self._stop(scope)
            if response is None:
                await self.app(scope, self._bounded(receive), counted)
                return
        except RefusedRequestError as error:
            if started:
                raise
            response = error_response(error)
        await response(scope, receive, counted)

    def _stop(self, scope: Scope) -> Response | None:
        """A response that ends the request here, None where it may go on."""
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        path = scope["path"]
        if path == "/health" and scope["method"] in ("GET", "HEAD"):
            return None
        if self.token is None:
            self._check_host(headers)
        elif (response := self._check_token(scope, headers)) is not None:
            return response
        if scope["method"] == "POST" and path.startswith("/v1/"):
            # A page elsewhere can make a browser post text, but not JSON.
            if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
                raise RefusedRequestError("Content-Type is not application/json", 415, "unsupported_media_type")
            self.rate.admit(client_of(scope))
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:20]) > self.body_bytes:
            raise self._too_large()
        return None

    def _check_host(self, headers: dict[str, str]) -> None:
        host = headers.get("host", "")
        name = host.rpartition("]")[0].strip("[") if host.startswith("[") else host.partition(":")[0]
        if not is_loopback(name):
            raise RefusedRequestError(f"the host {host[:80]!r} is not this machine", 421, "wrong_host")

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

    def _bounded(self, receive: Receive) -> Receive:
        """Bodies that do not say how long they are end where they become too long."""
        size = 0

        async def bounded() -> MutableMapping[str, Any]:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self.body_bytes:
                raise self._too_large()
            return message

        return bounded

    def _too_large(self) -> RefusedRequestError:
        return RefusedRequestError(f"the body has more than {self.body_bytes} bytes", 413, "too_large")


def client_of(scope: Scope) -> str:
    """Return the address that a request comes from."""
    return (scope.get("client") or ("unknown",))[0]
