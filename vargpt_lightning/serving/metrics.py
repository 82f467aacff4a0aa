"""What a server counts, for Prometheus."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from vargpt_lightning.serving.engine import EngineRequest, Failed, Finished

if TYPE_CHECKING:
    from vargpt_lightning.serving.engine import Engine

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class ServerMetrics:
    """Counters of one server; an engine's observer."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.requests = Counter("vargpt_http_requests", "HTTP requests", ["path", "status"], registry=registry)
        self.answers = Counter("vargpt_answers", "Answers by how they ended", ["finished"], registry=registry)
        self.tokens = Counter("vargpt_tokens", "Tokens read and made", ["kind"], registry=registry)
        self.pictures = Counter("vargpt_pictures_drawn", "Pictures drawn", registry=registry)
        self.waited = Histogram("vargpt_wait_seconds", "From asking to its turn", buckets=SECONDS, registry=registry)
        self.took = Histogram("vargpt_answer_seconds", "From asking to the end", buckets=SECONDS, registry=registry)
        sizes = (1, 2, 4, 8, 16, 32, 64)
        self.sizes = Histogram("vargpt_batch_answers", "Answers made together", buckets=sizes, registry=registry)

    def watch(self, engine: Engine) -> None:
        """Show an engine's queue."""
        Gauge("vargpt_waiting", "Answers that wait", registry=self.registry).set_function(lambda: engine.waiting)
        Gauge("vargpt_running", "Answers being made", registry=self.registry).set_function(lambda: engine.running)

    def joined(self, answers: int) -> None:
        """Requests have joined: so many are answered together now."""
        self.sizes.observe(answers)

    def ended(self, ticket: EngineRequest, event: Finished | Failed) -> None:
        """A request has ended."""
        self.took.observe(time.monotonic() - ticket.asked)
        if ticket.begun is not None:
            self.waited.observe(ticket.begun - ticket.asked)
        if isinstance(event, Failed):
            self.answers.labels("failed").inc()
            return
        self.answers.labels(event.answer.finished).inc()
        self.tokens.labels("prompt").inc(ticket.prompt_tokens)
        self.tokens.labels("answer").inc(len(event.answer.token_ids))
        self.pictures.inc(len(event.answer.pictures))

    def text(self) -> bytes:
        """Return all of it in Prometheus' format."""
        return generate_latest(self.registry)
