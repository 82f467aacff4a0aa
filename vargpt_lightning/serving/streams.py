"""Events of an engine's thread in an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from vargpt_lightning.models.generation.answers import Answer
from vargpt_lightning.serving.engine import EngineRequest, Event, Failed, Finished
from vargpt_lightning.serving.limits import refusal


@dataclass
class Stream:
    """The events of a request's answers, each with the answer's number, while the client is there."""

    tickets: Sequence[EngineRequest]
    arrived: asyncio.Queue[tuple[int, Event]]

    @classmethod
    def of(cls, tickets: Sequence[EngineRequest]) -> Stream:
        """Let the tickets' events arrive in this event loop."""
        loop, arrived = asyncio.get_running_loop(), asyncio.Queue[tuple[int, Event]]()

        def teller(number: int) -> Callable[[Event], object]:
            return lambda event: loop.call_soon_threadsafe(arrived.put_nowait, (number, event))

        for number, ticket in enumerate(tickets):
            ticket.tell = teller(number)
        return cls(tickets, arrived)

    async def events(self) -> AsyncIterator[tuple[int, Event]]:
        """Yield events until all answers have ended."""
        left = len(self.tickets)
        while left:
            number, event = await self.arrived.get()
            left -= isinstance(event, Finished | Failed)
            yield number, event

    async def answers(self) -> list[Answer]:
        """Wait for all answers.

        Raises:
            RefusedRequestError: one of them failed.
        """
        found: dict[int, Answer] = {}
        async for number, event in self.events():
            if isinstance(event, Failed):
                raise refusal(event.error) from event.error
            if isinstance(event, Finished):
                found[number] = event.answer
        return [found[number] for number in range(len(self.tickets))]

    def cancel(self) -> None:
        """Nobody waits any more."""
        for ticket in self.tickets:
            ticket.cancel()
