"""Connections that keep nobody else out: those that bring no request, or take no answer, are closed in time."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

CONNECTIONS = 512  # at the same time; of those whose request has still to come the oldest makes room for another
REQUEST_SECONDS = 15.0  # until the headers of a request, the first or the next, are there
WRITE_SECONDS = 60.0  # in which a client takes nothing of its answer


class Connection(H11Protocol):
    """A connection of a client; uvicorn makes one of each."""

    waiting_since = 0.0
    _deadline: asyncio.TimerHandle | None = None
    _writing: asyncio.TimerHandle | None = None

    @property
    def busy(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def awaited(self) -> bool:
        """Whether a request, or the rest of its body, has still to come."""
        return not self.busy or self.cycle.more_body

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a request, in the place of another connection where there are too many."""
        super().connection_made(transport)
        self._wait()
        if len(self.connections) > CONNECTIONS:
            waiting = [one for one in self.connections if isinstance(one, Connection) and one.awaited]
            min(waiting, key=lambda one: one.waiting_since).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the time-outs."""
        super().connection_lost(exc)
        for timer in (self._deadline, self._writing):
            if timer is not None:
                timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Take a piece of a request."""
        super().data_received(data)
        if self.busy and self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def on_response_complete(self) -> None:
        """Wait for the next request; what is left of the last one's body counts as part of the wait."""
        super().on_response_complete()
        if not self.busy:
            self._wait()

    def pause_writing(self) -> None:
        """Watch whether the client takes what is sent."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """The client has taken it."""
        super().resume_writing()
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None

    def _wait(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self.waiting_since = self.loop.time()
        self._deadline = self.loop.call_later(REQUEST_SECONDS, self._too_late)

    def _too_late(self) -> None:
        if not self.busy:
            self.transport.close()  # after the end of the last answer has been sent
            self._watch()

    def _watch(self) -> None:
        left = self.transport.get_write_buffer_size()
        if self._writing is not None:
            self._writing.cancel()
        self._writing = self.loop.call_later(WRITE_SECONDS, self._stuck, left) if left else None

    def _stuck(self, before: int) -> None:
        if self.transport.get_write_buffer_size() >= before:
            self.transport.abort()
        else:
            self._watch()
