"""What is told while a model is loaded and while it answers. No torch until then."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vargpt_lightning.utils.progress import importing, working

if TYPE_CHECKING:  # a command's refusals must not wait for torch
    from vargpt_lightning.inference.assistant import Assistant
    from vargpt_lightning.models.generation.answers import Watcher


def load_assistant(
    where: str, stage: str | None, device: str | None, fast: bool = False, compiled: bool = False
) -> Assistant:
    """Load the model of a run or of a folder that `vargpt convert` wrote, and say so.

    Args:
        fast: as for `speed_up`.
        compiled: as for `compile_drawing`.
    """
    with working(f"loading {where}"):
        with importing():
            from vargpt_lightning.inference.load import load_run_or_directory
        assistant = load_run_or_directory(where, stage, device)
    make_fast(assistant, fast, compiled)
    return assistant


def make_fast(assistant: Assistant, fast: bool, compiled: bool) -> None:
    """Speed a model up as asked, and say in what it multiplies."""
    if not (fast or compiled):
        return
    from vargpt_lightning.inference.fast import compile_drawing, speed_up

    if fast:
        form = speed_up(assistant.model)
        found = "nothing faster than float32 here" if form == "float32" else f"the blocks multiply in {form}"
        print(f"--fast: {found}", file=sys.stderr, flush=True)
    if compiled:
        compile_drawing(assistant.model)


@contextmanager
def answering(count: int = 1) -> Iterator[Watcher]:
    """Say how far the answers are that are made in this block; yields what has to watch them."""
    from vargpt_lightning.models.generation.answers import Watcher

    what = "answering" if count == 1 else f"making {count} answers"
    with working(what) as step:
        written: dict[int, int] = {}
        drawn = 0

        class Teller(Watcher):
            def text(self, row: int, text: str) -> None:
                written[row] = len(text)
                step.text = f"{what}: {sum(written.values())} characters, {drawn} pictures"

            def part(self, row: int, part: Any) -> None:
                nonlocal drawn
                drawn += hasattr(part, "image")
                step.text = f"{what}: {sum(written.values())} characters, {drawn} pictures"

        yield Teller()
