"""The tiny finished run behind an engine and behind a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands.conftest import finished_run, script
from vargpt_lightning.commands.loading import LoadedRun, load_run
from vargpt_lightning.evaluation.adapters.ours import Conversation
from vargpt_lightning.serving.engine import Engine

__all__ = ["finished_run", "script"]


@pytest.fixture(scope="session")
def speaker(finished_run: Path) -> LoadedRun:
    return load_run(finished_run, device="cpu")


@pytest.fixture
def engine(speaker: LoadedRun) -> Iterator[Engine]:
    made = Engine(speaker)
    yield made
    made.stop()


def asked(text: str) -> Conversation:
    conversation = Conversation()
    conversation.ask(text)
    return conversation
