"""One server of everything: the API, the page, the gate before both."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from vargpt_lightning.evaluation.systems.scorers import find_scorer
from vargpt_lightning.serving.engine import Engine
from vargpt_lightning.serving.gate import App, Gate, Receive, Scope, Send, check_address
from vargpt_lightning.serving.limits import Limits, RateLimit
from vargpt_lightning.serving.metrics import ServerMetrics
from vargpt_lightning.serving.openai_api import OpenAIApi, refuse, refuse_path
from vargpt_lightning.utils.errors import UserError

if TYPE_CHECKING:
    import uvicorn

    from vargpt_lightning.inference.assistant import Assistant

BACKLOG = 256


class Service:
    """A model behind an ASGI application, `app`.

    Args:
        assistant: answers.
        name: what the model is called.
        limits: what is refused.
        token: who has it may ask; None for everyone on this machine.
        remote_pictures: whether pictures are fetched from public addresses.
        page: whether there is the web page too.
        examples: requests that the page offers.
    """

    def __init__(
        self,
        assistant: Assistant,
        name: str,
        limits: Limits | None = None,
        token: str | None = None,
        remote_pictures: bool = False,
        page: bool = True,
        examples: Sequence[str] = (),
    ) -> None:
        self.limits = limits or Limits()
        assistant.scorers = assistant.scorers or find_scorer
        self.metrics = ServerMetrics()
        self.engine = Engine(assistant, self.limits, observer=self.metrics)
        self.metrics.watch(self.engine)
        self.rate = RateLimit(self.limits.requests_a_minute)
        api = OpenAIApi(self.engine, self.metrics, name, remote_pictures)
        # That a client leaves is no fault, and nothing for the log.
        handlers: dict[Any, Any] = dict.fromkeys((UserError, ClientDisconnect, Exception), refuse)
        handlers[HTTPException] = refuse_path
        inner: App = Starlette(routes=api.routes(), exception_handlers=handlers, lifespan=self._lifespan)
        if page:
            from vargpt_lightning.serving.page import page_app

            inner = _Apart(inner, page_app(self.engine, self.rate, name, self._lifespan, examples))
        self.app: App = Gate(inner, token, self.limits.body_bytes, self.rate, self.metrics)

    @asynccontextmanager
    async def _lifespan(self, app: Any) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(self.engine.stop)


class _Apart:
    """The API and the page as two applications: nothing of Gradio's, such as its CORS headers, reaches the API."""

    def __init__(self, api: App, page: App) -> None:
        self.api, self.page = api, page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")  # the page's lifespan is everything's
        of_api = path in ("/v1", "/health", "/metrics") or path.startswith("/v1/")
        await (self.api if of_api else self.page)(scope, receive, send)


def listen(host: str, port: int, token: str | None) -> socket.socket:
    """Return a socket that listens at an address; port 0 takes a free one.

    Raises:
        UserError: others reach the address and there is no token, or it cannot be listened at.
    """
    check_address(host, token)
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        raise UserError(f"{host}:{port} cannot be listened at ({error})") from error


def http_server(service: Service) -> uvicorn.Server:
    """Return what runs the service: `server.run(sockets=[...])`."""
    import uvicorn

    from vargpt_lightning.serving.connections import Connection

    config = uvicorn.Config(
        service.app,
        http=Connection,
        log_level="warning",
        timeout_graceful_shutdown=5,
        ws="none",
        proxy_headers=False,
        server_header=False,
    )
    logging.getLogger("uvicorn.error").addFilter(_is_no_cancelled_request)
    return uvicorn.Server(config)


def _is_no_cancelled_request(record: logging.LogRecord) -> bool:
    """Drop the traceback of a request that was open when the server stopped: one line says how many there were."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, asyncio.CancelledError)
