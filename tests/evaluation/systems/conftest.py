"""The tiny finished run and how to make its model say what a test wants; tiny models of other people."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    """Folders of untrained models by kind, written when they are first asked for; nothing may change them."""
    import transformers

    from tests.evaluation.systems.tiny_models import KINDS

    transformers.utils.logging.disable_progress_bar()
    known: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in known:
            known[kind] = KINDS[kind](tmp_path_factory.mktemp("models") / kind)
        return known[kind]

    yield folder
    transformers.utils.logging.enable_progress_bar()
