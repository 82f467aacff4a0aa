"""JSON over HTTP that outlasts a busy or stumbling server: retries with growing waits, and what the server asks for.

Statuses 408, 409, 425, 429 and 5xx, time-outs, broken connections and malformed bodies are tried again; any other
refusal is final. Redirects are refused: they would carry the key to another host.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit

Result = TypeVar("Result")

AGAIN = (408, 409, 425, 429)
LOOPBACK = ("localhost", "127.0.0.1", "::1")
LARGEST = 32 * 2**20


class CallError(Exception):
    """A call that did not succeed: why, its HTTP status if there is one, and how long the server wants to be left."""

    def __init__(self, reason: str, status: int | None = None, wait: float | None = None, again: bool = True) -> None:
        super().__init__(reason)
        self.status, self.wait, self.again = status, wait, again


class StoppedError(Exception):
    """Somebody else's call failed for good: this one is not tried again."""


@dataclass(frozen=True)
class Patience:
    """How often a call is tried again and how long is waited before.

    Args:
        retries: after the first attempt.
        timeout: seconds for one attempt.
        backoff: seconds before the first retry; doubled each time, and a random part of up to a half taken off.
        longest: seconds that are waited at most, whatever the server asks for.
    """

    retries: int = 5
    timeout: float = 120.0
    backoff: float = 1.0
    longest: float = 120.0

    def wait(self, attempt: int, asked: float | None) -> float:
        """Seconds to wait after the attempt with this number (from 0); no less than what the server asked for."""
        own = min(self.backoff * 2.0 ** min(attempt, 60), self.longest) * random.uniform(0.5, 1)
        return max(own, asked or 0.0)


def with_retries(call: Callable[[], Result], patience: Patience, stop: threading.Event) -> Result:
    """Returns what a call returns, tried again as `patience` says.

    Raises:
        CallError: the last attempt's, or one that no retry can help.
        StoppedError: `stop` was set while it waited.
    """
    for attempt in range(patience.retries + 1):
        if stop.is_set():
            raise StoppedError
        try:
            return call()
        except CallError as error:
            if not error.again or attempt == patience.retries:
                tries = f" (tried {attempt + 1} times)" if attempt else ""
                raise CallError(f"{error}{tries}", error.status, again=error.again) from error
            if error.wait is not None and error.wait > patience.longest:
                asked = f"it asks to be left alone for {error.wait:.0f} s, longer than {patience.longest:.0f} s"
                raise CallError(f"{error}; {asked}", error.status) from error
            stop.wait(patience.wait(attempt, error.wait))
    raise StoppedError


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def opener(url: str) -> urllib.request.OpenerDirector:
    """What opens a URL: through the proxy that the environment names, but not to this machine itself."""
    direct = [urllib.request.ProxyHandler({})] if urlsplit(url).hostname in LOOPBACK else []
    return urllib.request.build_opener(_NoRedirects, *direct)


def post_json(
    open_url: urllib.request.OpenerDirector, url: str, body: bytes, headers: dict[str, str], timeout: float
) -> Any:
    """Posts a body and returns the JSON that comes back.

    Raises:
        CallError: anything else came back, or nothing within `timeout` seconds.
    """
    request = urllib.request.Request(url, data=body, headers=headers, method="POST")
    until = time.monotonic() + timeout
    try:
        with open_url.open(request, timeout=timeout) as response:
            content = _read(response, until)
    except urllib.error.HTTPError as error:
        _refuse(error, until)
    except TimeoutError as error:
        raise CallError(f"no answer within {timeout:g} s") from error
    except urllib.error.URLError as error:
        late = isinstance(error.reason, TimeoutError)
        raise CallError(f"no answer within {timeout:g} s" if late else f"cannot be reached: {error.reason}") from error
    except (http.client.HTTPException, OSError) as error:
        raise CallError(f"the connection broke: {error or type(error).__name__}") from error
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CallError(f"not JSON: {content[:80]!r}") from error


def _read(response: Any, until: float) -> bytes:
    """The whole body; a server that sends it a few bytes at a time is cut off like one that sends nothing."""
    parts: list[bytes] = []
    size = 0
    while part := response.read1(65536):
        parts.append(part)
        size += len(part)
        if size > LARGEST:
            raise CallError(f"more than {LARGEST} bytes came back")
        if time.monotonic() > until:
            raise TimeoutError
    if response.length:  # read1 does not tell a connection that was cut from the end of a body
        raise CallError(f"the connection broke: {response.length} bytes of the body are missing")
    return b"".join(parts)


def _refuse(error: urllib.error.HTTPError, until: float) -> NoReturn:
    try:
        said = _message(_read(error, until))
    except (OSError, CallError, http.client.HTTPException):
        said = ""
    again = error.code in AGAIN or error.code >= 500
    wait = _retry_after(error.headers.get("Retry-After"))
    raise CallError(f"HTTP {error.code}{f': {said}' if said else ''}", error.code, wait, again) from error


def _message(body: bytes) -> str:
    """What a refusal says: its `error.message`, or its text."""
    text = body.decode("utf-8", "replace")
    try:
        found = json.loads(text)
        found = found.get("error", found)
        text = str(found.get("message", text)) if isinstance(found, dict) else str(found)
    except (ValueError, AttributeError, RecursionError):
        pass
    return " ".join(text.split())[:300]


def _retry_after(value: str | None) -> float | None:
    """Seconds, from a number or a date; None where the header is missing or neither."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            when = parsedate_to_datetime(value)
        except (ValueError, TypeError):
            return None
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        seconds = (when - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if seconds < float("inf") else None
