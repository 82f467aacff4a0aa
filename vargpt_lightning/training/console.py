"""The sentences of Lightning that say nothing about a run here, kept out of its output."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

MESSAGES = (
    r"(GPU|TPU|HPU) available: ",
    r"\W*Tip: ",
    r"`Trainer\.fit` stopped: `max_steps=",
    r"`Trainer\(limit_val_batches=1\)` was configured",
    r"Restor(ing|ed) (all )?states from the checkpoint",
)
"""Of its loggers. A stage's table, its progress and its end are shown by the callbacks."""

WARNINGS = (
    r"Found \d+ module\(s\) in eval mode",  # frozen submodules are meant to be
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # its own affair with torch
    r"You defined a `validation_step` but have no `val_dataloader`",  # a mixture without held-out records
    r"`training_step` returned `None`",  # the module warns of it with the stage's name
    r"FSDP2-wrapped module \(\w+\) returned a view",  # nothing here changes outputs in place
)
"""Of its `warnings`; no others are hidden."""


class _Without(logging.Filter):
    def __init__(self) -> None:
        super().__init__()
        self.pattern = re.compile("|".join(MESSAGES))

    def filter(self, record: logging.LogRecord) -> bool:
        ours = record.name.partition(".")[0].startswith("lightning")
        return not (ours and self.pattern.match(record.getMessage()))


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Hide these sentences inside the block; with `--debug` (VARGPT_DEBUG) all are shown."""
    if os.environ.get("VARGPT_DEBUG"):
        yield
        return
    import lightning.pytorch  # noqa: F401  its loggers get their handlers with the import

    names = ("", "lightning", "lightning.pytorch", "lightning.fabric")
    handlers = {handler for name in names for handler in logging.getLogger(name).handlers}
    without = _Without()
    for handler in handlers:
        handler.addFilter(without)
    try:
        with warnings.catch_warnings():
            for message in WARNINGS:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for handler in handlers:
            handler.removeFilter(without)
