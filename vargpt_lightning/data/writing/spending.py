"""How much and how fast may be asked of a service.

Rate limiters of packages refuse or wait by a fixed rate; here the service's own `Retry-After` halts all threads, and a
wait ends when the run is stopped.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Budget:
    """A limit of requests and of tokens, over all runs of a job; None is no limit.

    What a request will take is estimated before it is sent, and held until it is known; so the limit is kept as far
    as estimates are not too low. `spent` tells requests and tokens so far.
    """

    def __init__(
        self, spent: Callable[[], tuple[int, int]], max_requests: int | None = None, max_tokens: int | None = None
    ) -> None:
        self._spent, self._max_requests, self._max_tokens = spent, max_requests, max_tokens
        self._held = 0
        self._free = threading.Condition()
        self._on_their_way = 0

    def take(self, tokens: int, stop: threading.Event) -> bool:
        """Hold a request and its tokens; False when the limit does not allow it, or `stop` is set.

        While others are on their way, which may take fewer than they hold, it waits for them.
        """
        with self._free:
            while not stop.is_set():
                if self._fits(tokens, self._on_their_way, self._held):
                    self._held += tokens
                    self._on_their_way += 1
                    return True
                if not self._on_their_way or not self._fits(tokens, 0, 0):
                    return False
                self._free.wait(0.1)
            return False

    def give_back(self, tokens: int) -> None:
        """Let go of what was held, once what it took is counted as spent."""
        with self._free:
            self._held -= tokens
            self._on_their_way -= 1
            self._free.notify_all()

    def _fits(self, tokens: int, on_their_way: int, held: int) -> bool:
        requests, spent = self._spent()
        # a request on its way may be counted as spent already: that errs on the safe side, and only for a moment
        few = self._max_requests is None or requests + on_their_way + 1 <= self._max_requests
        return few and (self._max_tokens is None or spent + held + tokens <= self._max_tokens)


class Pace:
    """At most so many requests a minute, evenly spaced; a server that asks to be left alone stops all."""

    def __init__(self, per_minute: float | None = None) -> None:
        self._gap = 60.0 / per_minute if per_minute else 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self, stop: threading.Event) -> None:
        """Wait for one's turn, or until `stop` is set."""
        with self._lock:
            turn = max(self._next, time.monotonic())
            self._next = turn + self._gap
        while (left := turn - time.monotonic()) > 0 and not stop.wait(min(left, 1.0)):
            pass

    def hold(self, seconds: float) -> None:
        """Let nobody start before so many seconds have passed."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)
