"""What all plug-ins do: open a system, and ask it what their runner asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from vargpt_lightning.evaluation.base.files import rgb
from vargpt_lightning.evaluation.base.protocols import AnswerRequest
from vargpt_lightning.evaluation.harness.batcher import Batches
from vargpt_lightning.evaluation.harness.outputs import Output
from vargpt_lightning.evaluation.systems.open import open_system
from vargpt_lightning.utils.errors import UserError

TOKEN = "<image>"


@dataclass(frozen=True)
class Asked:
    """A question of a runner: its words, its pictures, and where the answer ends.

    Args:
        length: of the answer in tokens; None leaves it to the system.
        until: texts that end the answer; they are no part of it.
    """

    prompt: str
    pictures: Sequence[Image.Image] = field(default=(), repr=False)
    length: int | None = None
    until: Sequence[str] = ()


class Asker:
    """A system that a runner asks.

    Args:
        run: a run's folder, or anything else that `vargpt evaluate` takes.
        batch_size: questions asked together; memory that is short makes it smaller.
        options: of the system, such as device or stage; those that are None are left out.

    Raises:
        UserError: there is no such system, or it takes no such option.
    """

    def __init__(self, run: str, batch_size: int | str | None = None, **options: Any) -> None:
        self.system = open_system(str(run), **options)
        given = str(batch_size or "").partition(":")[0]
        self.batch_size = int(given) if given.isdigit() and int(given) else int(getattr(self.system, "batch_size", 8))

    @property
    def name(self) -> str:
        """What tables call it."""
        return str(self.system.name)

    def answers(self, questions: Sequence[Asked], done: Callable[[int], None] | None = None) -> list[str]:
        """The answers, in order; `done` is told how many more there are after each batch.

        Raises:
            UserError: a question cannot be asked.
        """
        requests = []
        for place, each in enumerate(questions):
            pictures = tuple(rgb(picture) if picture.mode != "RGB" else picture for picture in each.pictures)
            # the pictures come first, as everywhere here: their tokens in the words would be words
            words = each.prompt.replace(TOKEN, "").strip() if pictures else each.prompt
            request = AnswerRequest(f"question {place}", words, pictures, each.length)
            requests.append((request, Output(request.id, request.id, request.prompt)))
        batches, left = Batches(self.system, "auto"), requests
        said: dict[str, str] = {}
        batches.size = self.batch_size
        while left:
            outputs = batches.ask(left)
            if refused := [output.skipped for output in outputs if output.skipped]:
                raise UserError(refused[0])
            said |= {output.id: output.output for output in outputs}
            left = [request for request in left if request[0].id not in said]
            if done is not None:
                done(len(outputs))
        return [cut(said[request.id], each.until) for (request, _), each in zip(requests, questions, strict=True)]


def cut(answer: str, until: Sequence[str]) -> str:
    """An answer up to the first of some texts."""
    for end in until:
        if end:
            answer = answer.partition(end)[0]
    return answer


def ends(given: Any) -> tuple[str, ...]:
    """The texts that end an answer, of what runners give: none, one, or several."""
    if given is None:
        return ()
    return (given,) if isinstance(given, str) else tuple(map(str, given))
