"""The tiny finished run behind an engine and behind a server."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.inference.assistant import Conversation
from vargpt_lightning.inference.load import LoadedRun, load_run
from vargpt_lightning.serving.engine import Engine
from vargpt_lightning.serving.limits import Limits
from vargpt_lightning.serving.server import Service, http_server, listen


@pytest.fixture(scope="session")
def assistant(finished_run: Path) -> LoadedRun:
    return load_run(finished_run, device="cpu")


@pytest.fixture
def engine(assistant: LoadedRun) -> Iterator[Engine]:
    made = Engine(assistant)
    yield made
    made.stop()


def asked(text: str) -> Conversation:
    conversation = Conversation()
    conversation.ask(text)
    return conversation


@dataclass
class Running:
    """A server that listens on a free port."""

    service: Service
    url: str


@contextmanager
def serving(assistant: LoadedRun, **options) -> Iterator[Running]:
    """Run a service in a thread until the block ends."""
    service = Service(assistant, **{"name": "tiny", "page": False, **options})
    with listen("127.0.0.1", 0, None) as place:
        server = http_server(service)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [place]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield Running(service, f"http://127.0.0.1:{place.getsockname()[1]}")
        finally:
            server.should_exit = True
            thread.join(20)


@pytest.fixture(scope="module")
def running(assistant: LoadedRun) -> Iterator[Running]:
    limits = Limits(requests_a_minute=10_000, body_bytes=2**20, picture_bytes=2**19, picture_pixels=250_000)
    with serving(assistant, limits=limits) as found:
        yield found


@pytest.fixture(scope="module")
def sized(assistant: LoadedRun) -> LoadedRun:
    """The tiny run's weights in a model that draws wide and tall pictures too."""
    config = assistant.model.config
    sizes = ((1, 2, (4, 6)), (1, 2, (6, 4)))
    model = VARGPT(replace(config, tokenizer=replace(config.tokenizer, sizes=sizes)))
    model.load_state_dict(assistant.model.state_dict())
    return replace(assistant, model=model.eval())
