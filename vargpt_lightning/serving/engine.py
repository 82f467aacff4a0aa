"""Answers made in batches by one thread, for any number of threads that ask.

Requests that wait are answered together, whatever their settings, and join those that are being answered between two
steps of the model. Each has a random stream of its own, made of its seed and its row, so that an answer does not depend
on who else asked.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from vargpt_lightning.models.generation.answers import Answer, GenerationSettings, PicturePart, TextPart, Watcher
from vargpt_lightning.serving.limits import Limits, RefusedRequestError
from vargpt_lightning.utils.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

    from vargpt_lightning.inference.assistant import Assistant, Conversation
    from vargpt_lightning.models.generation.answers import Prompt

logger = logging.getLogger(__name__)
IDLE_SECONDS = 2.0  # without a request, after which memory is given back


@dataclass(frozen=True)
class TextDelta:
    """The next words of an answer."""

    text: str


@dataclass(frozen=True)
class ImagePreview:
    """A picture in the making, after scale `number` of `total` (from 1)."""

    image: Image.Image
    number: int
    total: int


@dataclass(frozen=True)
class Drawn:
    """A finished picture."""

    part: PicturePart


@dataclass(frozen=True)
class Finished:
    """The end of an answer, with all of it."""

    answer: Answer


@dataclass(frozen=True)
class Failed:
    """The end of a request that could not be answered."""

    error: Exception


Event = TextDelta | ImagePreview | Drawn | Finished | Failed


class Observer(Protocol):
    """What an engine tells about itself; `metrics.ServerMetrics` counts it."""

    def joined(self, answers: int) -> None:
        """Requests have joined: so many are answered together now."""

    def ended(self, ticket: EngineRequest, event: Finished | Failed) -> None:
        """A request has ended."""


@dataclass(eq=False)
class EngineRequest:
    """A request that waits, or is being answered, or has been.

    Args:
        conversation: its last turn is the user's.
        settings: how it is answered; `seed` and `row` make its random stream.
        sketches: whether pictures are shown after each scale.
        tell: called with each event from the engine's thread; by default events are kept for `events`.
        draw: begin with a picture whatever the model would say.
    """

    conversation: Conversation
    settings: GenerationSettings
    row: int = 0
    sketches: bool = False
    tell: Callable[[Event], object] | None = None
    draw: bool = False
    asked: float = field(default_factory=time.monotonic)
    begun: float | None = None
    prompt_tokens: int = 0
    _kept: queue.SimpleQueue[Event] = field(default_factory=queue.SimpleQueue)
    _cancelled: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        """Say that nobody waits any more; what is made so far comes with `Finished`."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits any more."""
        return self._cancelled.is_set()

    def say(self, event: Event) -> None:
        """Pass an event on; a listener that went away ends the request, not the engine."""
        if self.tell is None:
            self._kept.put(event)
            return
        try:
            self.tell(event)
        except Exception:
            self.cancel()

    def events(self, timeout: float | None = None) -> Iterator[Event]:
        """Yield events until the end; `queue.Empty` is raised when `timeout` seconds bring none."""
        while True:
            event = self._kept.get(timeout=timeout)
            yield event
            if isinstance(event, Finished | Failed):
                return


class Engine:
    """A model with a queue before it.

    Args:
        assistant: answers; only the engine's thread runs it.
        limits: of the queue and of a batch.
        gather: seconds to wait for company where nothing is being answered.
        observer: is told of what was done.
    """

    def __init__(
        self, assistant: Assistant, limits: Limits | None = None, gather: float = 0.02, observer: Observer | None = None
    ) -> None:
        self.assistant, self.limits, self.gather, self.observer = assistant, limits or Limits(), gather, observer
        self._waiting: deque[EngineRequest] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._running: list[EngineRequest] = []
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many requests wait for their turn."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """How many requests are being answered."""
        return len(self._running)

    @property
    def alive(self) -> bool:
        """Whether requests are answered at all."""
        return self._thread.is_alive() and not self._stopped

    def submit(self, tickets: Sequence[EngineRequest]) -> None:
        """Queue requests, all or none.

        Raises:
            RefusedRequestError: (503) too many wait already, or the server is being stopped.
        """
        with self._changed:
            if self._stopped:
                raise RefusedRequestError("the server is being stopped", 503, "stopping", wait=10)
            self._drop_cancelled()
            if len(self._waiting) + len(tickets) > self.limits.queue:
                text = f"{len(self._waiting)} answers wait already, of {self.limits.queue} that may; try again later"
                raise RefusedRequestError(text, 503, "server_overloaded", wait=5)
            self._waiting.extend(tickets)
            self._changed.notify_all()

    def stop(self, timeout: float = 10.0) -> None:
        """End what runs, refuse what waits, and end the thread."""
        with self._changed:
            self._stopped = True
            left = [*self._waiting]
            self._waiting.clear()
            for ticket in self._running:
                ticket.cancel()
            self._changed.notify_all()
        for ticket in left:
            self.end(ticket, Failed(RefusedRequestError("the server is being stopped", 503, "stopping", wait=10)))
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)

    def _work(self) -> None:
        while self._wait_for_some():
            answering = _Answering(self)
            try:
                answering.run()
            except Exception as error:  # a fault must not end the server; what is wrong goes to the log
                logger.exception("a batch of %d failed", len(self._running))
                for ticket in list(self._running):
                    self.end(ticket, Failed(error))

    def _wait_for_some(self) -> bool:
        """Wait until there are requests, and company has had its time to come; False when the engine is stopped."""
        rested = False
        with self._changed:
            while not self._stopped:
                self._drop_cancelled()
                if self._waiting:
                    until = time.monotonic() + self.gather
                    while len(self._waiting) < self.limits.batch and (left := until - time.monotonic()) > 0:
                        self._changed.wait(left)
                    return True
                if not self._changed.wait(None if rested else IDLE_SECONDS):
                    rested = True
                    _return_memory()
        return False

    def take(self) -> list[EngineRequest]:
        """Let the oldest requests that wait be answered, as many as there is room for; for the engine's thread."""
        with self._changed:
            self._drop_cancelled()
            room = max(0, self.limits.batch - len(self._running))
            taken = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
            self._running += taken
        for ticket in taken:
            ticket.begun = time.monotonic()
        if taken and self.observer is not None:
            self.observer.joined(len(self._running))
        return taken

    def _drop_cancelled(self) -> None:
        gone = [ticket for ticket in self._waiting if ticket.cancelled]
        self._waiting = deque(ticket for ticket in self._waiting if not ticket.cancelled)
        for ticket in gone:
            self.end(ticket, Finished(Answer(finished="stopped")))

    def prompt(self, ticket: EngineRequest) -> Prompt:
        """Return what the model is asked.

        Raises:
            UserError: it does not fit into the context.
        """
        reserve = self.assistant.picture_tokens(ticket.settings.size) + 2 if ticket.draw else 1
        prompt = self.assistant.prompt(ticket.conversation, ticket.row, reserve)
        ids = [*prompt.input_ids, self.assistant.tokenizer.image_gen_start_id] if ticket.draw else prompt.input_ids
        ticket.prompt_tokens = len(ids)
        return replace(prompt, input_ids=ids, settings=ticket.settings)

    def end(self, ticket: EngineRequest, event: Finished | Failed) -> None:
        """Say how a request has ended."""
        with self._changed:
            self._running = [other for other in self._running if other is not ticket]
        if self.observer is not None:
            self.observer.ended(ticket, event)
        ticket.say(event)


def _return_memory() -> None:
    """Give what large requests have left behind back to the system, which glibc does not do by itself."""
    with contextlib.suppress(OSError, AttributeError):  # another libc
        ctypes.CDLL(None).malloc_trim(0)


def _begun(text: str, stops: Sequence[str]) -> int:
    """How many characters at the end of a text may be the beginning of a stop."""
    longest = max(map(len, stops), default=0)
    return next((n for n in range(min(longest, len(text)), 0, -1) if any(s.startswith(text[-n:]) for s in stops)), 0)


class _Answering(Watcher):
    """From the first request to the moment at which none is left: lets others join, and passes on what happens."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.scales = engine, engine.assistant.model.schedule.num_scales
        self.tickets: dict[int, EngineRequest] = {}
        self.said: dict[int, str] = {}
        self.count = 0

    def run(self) -> None:
        """Answer requests until none is left."""
        if first := self.joining(0):
            settings = replace(self.engine.assistant.settings, batch_size=len(first))
            self.engine.assistant.continue_all(first, settings, self)

    def joining(self, running: int) -> list[Prompt]:
        prompts: list[Prompt] = []
        for ticket in self.engine.take():
            try:
                prompts.append(self.engine.prompt(ticket))
            except UserError as error:  # does not fit into the context; its neighbours do
                self.engine.end(ticket, Failed(error))
                continue
            self.tickets[self.count], self.said[self.count] = ticket, ""
            self.count += 1
        return prompts

    def ended(self, row: int, answer: Answer) -> None:
        del self.said[row]
        self.engine.end(self.tickets.pop(row), Finished(answer))

    def failed(self, row: int, error: Exception) -> bool:
        del self.said[row]
        self.engine.end(self.tickets.pop(row), Failed(error))
        return True

    def text(self, row: int, text: str) -> None:
        # A character may be made of several tokens; a space may turn out to be the last, and what stands before it to
        # be the beginning of a text at which the answer stops.
        text = text.rstrip().rstrip("\N{REPLACEMENT CHARACTER}").rstrip()
        self._tell(row, text[: len(text) - _begun(text, self.tickets[row].settings.stop)].rstrip())

    def _tell(self, row: int, text: str) -> None:
        said = self.said[row]
        if len(text) > len(said) and text.startswith(said):
            self.tickets[row].say(TextDelta(text[len(said) :]))
            self.said[row] = text

    def part(self, row: int, part: TextPart | PicturePart) -> None:
        if isinstance(part, PicturePart):
            self.tickets[row].say(Drawn(part))
        else:
            self._tell(row, part.text)
        self.said[row] = ""

    def wants_scales(self, row: int) -> bool:
        return self.tickets[row].sketches

    def scale(self, row: int, k: int, image: Image.Image) -> None:
        self.tickets[row].say(ImagePreview(image, k + 1, self.scales))

    def gone(self, row: int) -> bool:
        return self.tickets[row].cancelled
