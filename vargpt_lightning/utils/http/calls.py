"""JSON over HTTP that outlasts a busy or stumbling server: retries with growing waits, and what the server asks for.

Statuses 408, 409, 425, 429 and 5xx, time-outs, broken connections and malformed bodies are tried again; any other
refusal is final. Redirects are refused: they would carry the key to another host.

httpx sends and tenacity repeats; what is ours is what neither knows: which failures are worth another attempt, how long
the server asked to be left alone, and whether it may have done the work, and charge for it, all the same.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit

import httpx
import tenacity

Result = TypeVar("Result")

AGAIN = (408, 409, 425, 429)
LOOPBACK = ("localhost", "127.0.0.1", "::1")
LARGEST = 32 * 2**20
_NEVER_ARRIVED = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)


class CallError(Exception):
    """A call that did not succeed.

    Attributes:
        status: of HTTP, when a refusal came.
        wait: seconds that the server wants to be left alone.
        again: whether another attempt may help.
        reached: whether the server may have done the work, and charge for it, although no usable answer came.
    """

    def __init__(
        self,
        reason: str,
        status: int | None = None,
        wait: float | None = None,
        again: bool = True,
        reached: bool = False,
    ) -> None:
        super().__init__(reason)
        self.status, self.wait, self.again, self.reached = status, wait, again, reached


class StoppedError(Exception):
    """Somebody else's call failed for good: this one is not tried again."""


@dataclass(frozen=True)
class RetryPolicy:
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


def with_retries(call: Callable[[], Result], policy: RetryPolicy, stop: threading.Event) -> Result:
    """Returns what a call returns, tried again as `policy` says.

    Raises:
        CallError: the last attempt's, or one that no retry can help.
        StoppedError: `stop` was set while it waited.
    """

    def attempt() -> Result:
        if stop.is_set():
            raise StoppedError
        try:
            return call()
        except CallError as error:
            if error.again and error.wait is not None and error.wait > policy.longest:
                asked = f"it asks to be left alone for {error.wait:.0f} s, longer than {policy.longest:.0f} s"
                raise CallError(f"{error}; {asked}", error.status, again=False, reached=error.reached) from error
            raise

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(lambda error: isinstance(error, CallError) and error.again),
        stop=tenacity.stop_after_attempt(policy.retries + 1),
        wait=lambda state: policy.wait(state.attempt_number - 1, _asked(state)),
        sleep=tenacity.sleep_using_event(stop),
        reraise=True,
    )
    try:
        return retrying(attempt)
    except CallError as error:
        tries = int(retrying.statistics.get("attempt_number", 1))
        if tries == 1:
            raise
        text = f"{error} (tried {tries} times)"
        raise CallError(text, error.status, again=error.again, reached=error.reached) from error


def _asked(state: tenacity.RetryCallState) -> float | None:
    error = state.outcome.exception() if state.outcome else None
    return error.wait if isinstance(error, CallError) else None


def http_client(url: str) -> httpx.Client:
    """What calls a URL: through the proxy that the environment names, but not to this machine itself."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    return httpx.Client(trust_env=urlsplit(url).hostname not in LOOPBACK, follow_redirects=False, limits=limits)


def post_json(client: httpx.Client, url: str, body: bytes, headers: dict[str, str], timeout: float) -> Any:
    """Posts a body and returns the JSON that comes back.

    Raises:
        CallError: anything else came back, or nothing within `timeout` seconds.
    """
    until = time.monotonic() + timeout
    try:
        with client.stream("POST", url, content=body, headers=headers, timeout=timeout) as response:
            if not response.is_success:
                _refuse(response, until)
            content = _read(response, until)
    except httpx.LocalProtocolError as error:  # its text repeats the header, and with it the key
        raise CallError("a header of the request has characters that may not stand there", again=False) from error
    except httpx.TimeoutException as error:
        raise CallError(f"no answer within {timeout:g} s", reached=not isinstance(error, _NEVER_ARRIVED)) from error
    except _NEVER_ARRIVED as error:
        raise CallError(f"cannot be reached: {error}") from error
    except (httpx.HTTPError, OSError) as error:
        raise CallError(f"the connection broke: {error or type(error).__name__}", reached=True) from error
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CallError(f"not JSON: {content[:80]!r}", reached=True) from error


def _read(response: httpx.Response, until: float) -> bytes:
    """The whole body; a server that sends it a few bytes at a time is cut off like one that sends nothing."""
    parts: list[bytes] = []
    size = 0
    for part in response.iter_bytes():
        parts.append(part)
        size += len(part)
        if size > LARGEST:
            raise CallError(f"more than {LARGEST} bytes came back", reached=True)
        if time.monotonic() > until:
            raise httpx.ReadTimeout("the body took too long")
    return b"".join(parts)


def _refuse(response: httpx.Response, until: float) -> NoReturn:
    try:
        said = _message(_read(response, until))
    except (OSError, CallError, httpx.HTTPError):
        said = ""
    code = response.status_code
    again = code in AGAIN or code >= 500
    wait = _retry_after(response.headers.get("Retry-After"))
    raise CallError(f"HTTP {code}{f': {said}' if said else ''}", code, wait, again)


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
