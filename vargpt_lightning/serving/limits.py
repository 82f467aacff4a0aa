"""What a server refuses, and the refusal that says why.

The rate limit is a sliding window of ours: the packages for it put no bound on how many clients they remember, and by
coming from many addresses one could fill the memory.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal

from vargpt_lightning.utils.errors import UserError

logger = logging.getLogger(__name__)

Kind = Literal["invalid_request_error", "authentication_error", "rate_limit_error", "server_error"]


class RefusedRequestError(UserError):
    """A request that is not answered, in the words of OpenAI's errors.

    Attributes:
        status: of HTTP.
        code: a word for programs, such as "context_length_exceeded".
        param: the field of the request that is at fault.
        wait: seconds after which another attempt may succeed.
    """

    def __init__(
        self,
        message: str,
        status: int = 400,
        code: str | None = None,
        param: str | None = None,
        wait: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param, self.wait = status, code, param, wait

    @property
    def kind(self) -> Kind:
        """OpenAI's `type`."""
        if self.status == 401:
            return "authentication_error"
        if self.status == 429:
            return "rate_limit_error"
        return "server_error" if self.status >= 500 and self.status != 501 else "invalid_request_error"


def refusal(error: Exception) -> RefusedRequestError:
    """Return what a client is told of an error; what is no fault of the client's goes to the log alone."""
    if isinstance(error, RefusedRequestError):
        return error
    if isinstance(error, UserError):
        code = "context_length_exceeded" if "context" in str(error) else None
        return RefusedRequestError(str(error), code=code)
    logger.error("a request failed", exc_info=error)
    return RefusedRequestError("the server failed on this request", 500, "internal_error")


@dataclass(frozen=True)
class Limits:
    """The most that a server takes.

    Args:
        prompt_characters: of all texts of a request together.
        picture_bytes: of one picture's file.
        picture_pixels: of one picture; an RGB pixel takes three bytes when it is decoded.
        pictures: of one conversation.
        body_bytes: of a request; base64 makes a third more of a picture.
        queue: answers that wait for their turn.
        batch: answers that are made together.
        requests_a_minute: from one address.
        new_tokens: text tokens of an answer.
        images: pictures of an answer.
        answers: of one request (`n`).

    Raises:
        UserError: one of them is below 1.
    """

    prompt_characters: int = 8_000
    picture_bytes: int = 8 * 2**20
    picture_pixels: int = 16_000_000
    pictures: int = 8
    body_bytes: int = 24 * 2**20
    queue: int = 64
    batch: int = 8
    requests_a_minute: int = 120
    new_tokens: int = 1024
    images: int = 4
    answers: int = 8

    def __post_init__(self) -> None:
        for each in fields(self):
            if getattr(self, each.name) < 1:
                raise UserError(f"{each.name}: got {getattr(self, each.name)}, expected 1 or more")


class RateLimit:
    """Counts the requests of each client in the last minute.

    Args:
        a_minute: how many there may be.
        clock: seconds; another one in tests.
        clients: how many are remembered; the one that was silent longest is forgotten first.
    """

    def __init__(self, a_minute: int, clock: Callable[[], float] = time.monotonic, clients: int = 10_000) -> None:
        self.a_minute, self.clock, self.clients = a_minute, clock, clients
        self._seen: OrderedDict[str, deque[float]] = OrderedDict()
        self._lock = threading.Lock()

    def admit(self, client: str) -> None:
        """Count a request.

        Raises:
            RefusedRequestError: (429) the client had as many as it may have.
        """
        now = self.clock()
        with self._lock:
            times = self._seen.setdefault(client, deque())
            self._seen.move_to_end(client)
            while len(self._seen) > self.clients:
                self._seen.popitem(last=False)
            while times and times[0] <= now - 60:
                times.popleft()
            if len(times) >= self.a_minute:
                wait = max(1, round(times[0] + 60 - now + 0.5))
                raise RefusedRequestError(
                    f"more than {self.a_minute} requests a minute; try again in {wait} s",
                    429,
                    "rate_limit_exceeded",
                    wait=wait,
                )
            times.append(now)
