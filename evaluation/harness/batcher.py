"""Asks a system batches of questions, as large as memory allows; those that it refuses are left out with the reason."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from vargpt_lightning.evaluation.base.protocols import AnswerRequest, RefusedError, TextModel, as_reply
from vargpt_lightning.evaluation.harness.outputs import Output
from vargpt_lightning.utils.errors import UserError

AUTO = "auto"
FIRST_GUESS = 16

Request = tuple[AnswerRequest, Output]
"""What is asked, and the output without what is said: its id, key, prompt and the fingerprint of its pictures."""


class Batches:
    """Asks batches of requests, as large as memory allows.

    Args:
        system: answers.
        size: requests in a batch; "auto" starts with what the system wishes, or a guess.
    """

    def __init__(self, system: TextModel, size: int | str) -> None:
        self.system, self.auto = system, size == AUTO
        self.size = int(getattr(system, "batch_size", None) or FIRST_GUESS) if self.auto else int(size)

    def ask(self, part: Sequence[Request]) -> list[Output]:
        """The outputs of the requests, or of some of them when all together do not fit into memory.

        Raises:
            UserError: a batch of one, or of a size that was asked for, does not fit.
        """
        part = part[: self.size]
        refused: list[Output] = []
        while part:
            short = ""
            try:
                raw = self.system.answer([request for request, _ in part])
            except RefusedError as error:
                refused += skipped(part, error)
                part = [one for one in part if one[0].id not in error.reasons]
                continue
            except Exception as error:
                if not _out_of_memory(error):
                    raise
                short = str(error).strip().partition("\n")[0]
            if not short:
                return said(part, raw) + refused
            # outside of the handler: the error holds on to what the batch has in memory
            _free_memory()
            if not self.auto or len(part) == 1:
                hint = "expected a smaller --batch-size, or auto" if not self.auto else "this system needs more"
                raise UserError(f"memory is too short for a batch of {len(part)} ({short}); {hint}")
            self.size = len(part) // 2
            part = part[: self.size]
        return refused


def said(part: Sequence[Request], raw: Sequence[Any]) -> list[Output]:
    """What was said to the requests. Raises ValueError when that is not one answer for each."""
    if len(raw) != len(part):
        raise ValueError(f"answers: {len(raw)} came back for {len(part)} requests; expected one for each")
    outputs = []
    for (_, asked), answer in zip(part, raw, strict=True):
        reply = as_reply(answer)
        text = answer if isinstance(answer, str) else reply.text  # as it came, blanks and all
        outputs.append(replace(asked, output=text, finish=reply.finish))
    return outputs


def skipped(part: Sequence[Request], error: RefusedError) -> list[Output]:
    """The requests that were refused, with the reasons; the error itself is raised when there is none of them."""
    found = [replace(asked, skipped=error.reasons[r.id]) for r, asked in part if r.id in error.reasons]
    if not found:
        raise error
    return found


def _out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory is short, on a GPU or here."""
    text = str(error).lower()
    named = type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError)
    return named or (isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text))


def _free_memory() -> None:
    gc.collect()
    torch = sys.modules.get("torch")  # a system without it has nothing to free there
    if torch is not None and torch.cuda.is_available():
        with contextlib.suppress(RuntimeError):
            torch.cuda.empty_cache()
