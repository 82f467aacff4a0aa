"""One server of everything: the API, the page, the gate before both."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from vargpt_lightning.errors import UserError
from vargpt_lightning.serving.engine import Engine
from vargpt_lightning.serving.gate import App, Gate, check_address, error_response
from vargpt_lightning.serving.limits import Limits, RateLimit, RefusedRequestError
from vargpt_lightning.serving.metrics import ServerMetrics
from vargpt_lightning.serving.openai_api import OpenAIApi, refuse

if TYPE_CHECKING:
    import uvicorn

    from vargpt_lightning.evaluation.adapters.ours import Speaker

CLIENTS = 256  # connections at the same time; more are answered with 503


class Service:
    """A model behind an ASGI application, `app`.

    Args:
        speaker: answers.
        name: what the model is called.
        limits: what is refused.
        token: who has it may ask; None for everyone on this machine.
        remote_pictures: whether pictures are fetched from public addresses.
        page: whether there is the web page too.
    """

    def __init__(
        self,
        speaker: Speaker,
        name: str,
        limits: Limits | None = None,
        token: str | None = None,
        remote_pictures: bool = False,
        page: bool = True,
    ) -> None:
        self.limits = limits or Limits()
        self.metrics = ServerMetrics()
        self.engine = Engine(speaker, self.limits, observer=self.metrics)
        self.metrics.watch(self.engine)
        self.rate = RateLimit(self.limits.requests_a_minute)
        api = OpenAIApi(self.engine, self.metrics, name, remote_pictures)
        inner = FastAPI(title=name, docs_url=None, redoc_url=None, openapi_url=None, lifespan=self._lifespan)
        inner.router.routes.extend(api.routes())
        inner.add_exception_handler(UserError, refuse)
        inner.add_exception_handler(ClientDisconnect, refuse)  # no fault, and nothing for the log
        inner.add_exception_handler(Exception, refuse)
        inner.add_exception_handler(HTTPException, _http_error)
        if page:
            from vargpt_lightning.serving.page import mount_page

            inner = mount_page(inner, self.engine, self.rate, name)
        self.app: App = Gate(inner, token, self.limits.body_bytes, self.rate, self.metrics)

    @asynccontextmanager
    async def _lifespan(self, app: Any) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(self.engine.stop)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return error_response(RefusedRequestError(str(error.detail), error.status_code))


def listen(host: str, port: int, token: str | None) -> socket.socket:
    """Return a socket that listens at an address; port 0 takes a free one.

    Raises:
        UserError: others reach the address and there is no token, or it cannot be listened at.
    """
    check_address(host, token)
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=CLIENTS)
    except (OSError, OverflowError) as error:
        raise UserError(f"{host}:{port} cannot be listened at ({error})") from error


def http_server(service: Service) -> uvicorn.Server:
    """Return what runs the service: `server.run(sockets=[...])`."""
    import uvicorn

    config = uvicorn.Config(
        service.app,
        log_level="warning",
        limit_concurrency=CLIENTS,
        timeout_graceful_shutdown=5,
        ws="none",
        proxy_headers=False,
        server_header=False,
    )
    return uvicorn.Server(config)
