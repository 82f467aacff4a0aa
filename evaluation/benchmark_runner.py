"""Asks a system a benchmark's questions, keeps each output as it comes, and has them scored.

    OUT/<benchmark>/asked.json, asking.json, outputs/    what is asked, how it went, what was said
    OUT/<benchmark>/result.<protocol>.json, ...          written by `benchmark_scoring.score_benchmark`

Killed at any moment, the same call goes on where it stopped, with any number of processes. Questions are read as a
stream, and only the pictures of one batch are decoded at a time.
"""

from __future__ import annotations

import contextlib
import gc
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from vargpt_lightning.errors import UserError
from vargpt_lightning.evaluation.benchmark_asked import Asked, Choice, choose, describe
from vargpt_lightning.evaluation.benchmark_outputs import Output, OutputLog
from vargpt_lightning.evaluation.benchmark_scoring import ASKING, score_benchmark
from vargpt_lightning.evaluation.benchmarks.base import Record, check_protocol
from vargpt_lightning.evaluation.benchmarks.layouts import Rows
from vargpt_lightning.evaluation.processes import Processes
from vargpt_lightning.evaluation.protocols import Answerer, AnswerRequest, Expecting, UnfinishedError, as_reply
from vargpt_lightning.results import write_json

Progress = Callable[[str, int, int], None]
"""Called with a title, how many are done and how many there are."""

Request = tuple[AnswerRequest, str]
"""What is asked, and the key of its output."""

AUTO = "auto"
FIRST_GUESS = 16


@dataclass(frozen=True)
class BenchmarkSettings:
    """How a benchmark is asked and scored.

    Args:
        protocols: of the scoring; a result for each.
        style: of the prompt.
        limit: at most so many questions, whole groups of them, the same each time; None asks all.
        batch_size: questions asked together; "auto" starts with a guess and halves it when memory is short.
        max_new_tokens: of an answer; None takes the benchmark's own.
        allow_partial: score incomplete groups.
        seed: of the choice of questions under a limit.
        options: for the benchmark's `score`, such as guess="random".

    Raises:
        UserError: an unknown protocol, or a number below 1.
    """

    protocols: Sequence[str] = ("lmms_eval",)
    style: str = "llava"
    limit: int | None = None
    batch_size: int | str = AUTO
    max_new_tokens: int | None = None
    allow_partial: bool = False
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for protocol in self.protocols:
            check_protocol(protocol)
        for name in ("limit", "max_new_tokens", "batch_size"):
            value = getattr(self, name)
            if name == "batch_size" and value == AUTO:
                continue
            if value is not None and (not isinstance(value, int) or value < 1):
                other = " or auto" if name == "batch_size" else ""
                raise UserError(f"{name}: {value!r}; expected a whole number above 0{other}")


def run_benchmark(
    system: Answerer,
    module: ModuleType,
    data: Path,
    out: Path,
    settings: BenchmarkSettings | None = None,
    *,
    processes: Processes | None = None,
    progress: Progress | None = None,
    facts: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """Ask what is left, score, and return a result for each protocol; empty in processes other than the first.

    Args:
        system: answers; its `name`, `digest` and `settings` tell its outputs from those of others, and without
            `needs_pictures` no picture is opened.
        module: the benchmark.
        data: its data, as its `load` takes them.
        out: the folder of all benchmarks; this one's is below it.
        processes: this process among several.
        progress: called with the benchmark's title.
        facts: what `describe(system)` returns, for a caller who asks several benchmarks: a digest takes its time.

    Raises:
        UserError: the data are of another benchmark, ids are not unique, no picture can be opened, a batch of one
            does not fit into memory, or what `score_benchmark` refuses.
    """
    settings, processes = settings or BenchmarkSettings(), processes or Processes()
    folder = out / module.NAME
    rows = module.load(data, pictures=getattr(system, "needs_pictures", True))
    asked = Asked(
        benchmark=module.NAME,
        **(facts or describe(system)),
        max_new_tokens=settings.max_new_tokens or module.MAX_NEW_TOKENS,
        style=settings.style,
        limit=settings.limit,
        seed=settings.seed,
        source=str(rows.source),
        data=str(Path(data).resolve()),
    )
    choice = choose(module, rows.without_pictures(), asked)
    if processes.first:
        asked.write(folder)
    if isinstance(system, Expecting):
        system.expect(module.NAME, list(choice.keys))
    _Asking(system, module, rows, folder, asked, choice, settings.batch_size, processes, progress or _say_nothing).run()
    processes.wait()
    if not processes.first:
        return {}
    return {
        protocol: score_benchmark(
            module, data, folder, protocol, allow_partial=settings.allow_partial, options=settings.options
        )
        for protocol in settings.protocols
    }


class _Asking:
    """One process's share of the questions that have no output yet."""

    def __init__(
        self,
        system: Answerer,
        module: ModuleType,
        rows: Rows,
        folder: Path,
        asked: Asked,
        choice: Choice,
        batch_size: int | str,
        processes: Processes,
        progress: Progress,
    ) -> None:
        self.module, self.rows, self.folder, self.asked, self.choice = module, rows, folder, asked, choice
        self.processes, self.progress = processes, progress
        self.log = OutputLog(folder / "outputs", processes.rank)
        self.batches = Batches(system, batch_size)
        self.asked_size = batch_size
        self.done = self.total = 0

    def run(self) -> None:
        """Ask all of it, a batch at a time; what was said is on the disk before the next batch is asked."""
        keys = self.choice.keys
        before = self.log.read(set(keys.values()))
        self.processes.wait()  # nobody writes before all have read: shares of different lists would leave holes
        left = [id_ for id_, key in keys.items() if key not in before or before[key].skipped]
        share = self.processes.share(left)
        self.done = (len(keys) - len(left)) // self.processes.world
        self.total = self.done + len(share)
        self._say()
        began = time.monotonic()
        queue: list[Request] = []
        for request in self._requests(share, before):
            queue.append(request)
            if len(queue) >= self.batches.size:
                queue = self._send(queue)
        while queue:
            queue = self._send(queue)
        if self.processes.first and share:
            about: dict[str, Any] = {"batch_size": self.batches.size, "batch_size_asked": self.asked_size}
            if counts := getattr(self.batches.system, "counts", None):
                about["answers"] = dict(counts)  # of a file: ids that are missing, doubled, unknown
            about |= {"processes": self.processes.world, "outputs": len(share), "seconds": time.monotonic() - began}
            write_json(self.folder / ASKING, about)

    def _requests(self, share: Sequence[str], before: Mapping[str, Output]) -> Iterator[Request]:
        """The share's questions with their pictures; those whose pictures cannot be opened are written as skipped."""
        for record in self.rows.take(self.choice.places[id_] for id_ in share):
            id_ = str(self.module.record_id(record))
            key, prompt = self.choice.keys[id_], self.module.prompt(record, self.asked.style)
            try:
                pictures = self._pictures(record)
            except UserError as error:
                reason = re.sub(r" at 0x[0-9a-f]+", "", str(error))  # an address differs each time
                if key not in before or before[key].skipped != reason:
                    self.log.append([Output(id_, key, prompt, skipped=reason)])
                self.done += 1
                self._say()
                continue
            yield AnswerRequest(id_, prompt, pictures, self.asked.max_new_tokens), key

    def _pictures(self, record: Record) -> tuple[Any, ...]:
        if not self.rows.pictures:
            return ()
        pictures = self.module.pictures(record)
        if any(picture is None for picture in pictures):
            raise UserError("the question has no picture")
        return tuple(picture.open() for picture in pictures)

    def _send(self, queue: list[Request]) -> list[Request]:
        """Ask as many as fit into memory, keep what was said, and return the others."""
        try:
            outputs = self.batches.ask(queue)
        except UnfinishedError as error:
            known = [(request, key) for request, key in queue if request.id in error.replies]
            self.log.append(_outputs(known, [error.replies[request.id] for request, _ in known]))
            raise
        self.log.append(outputs)
        self.done += len(outputs)
        self._say()
        return queue[len(outputs) :]

    def _say(self) -> None:
        self.progress(self.module.TITLE, self.done, self.total)


class Batches:
    """Asks batches of requests, as large as memory allows.

    Args:
        system: answers.
        size: requests in a batch; "auto" starts with what the system wishes, or a guess.
    """

    def __init__(self, system: Answerer, size: int | str) -> None:
        self.system, self.auto = system, size == AUTO
        self.size = int(getattr(system, "batch_size", None) or FIRST_GUESS) if self.auto else int(size)

    def ask(self, part: Sequence[Request]) -> list[Output]:
        """The outputs of the requests, or of the first of them when all together do not fit into memory.

        Raises:
            UserError: a batch of one, or of a size that was asked for, does not fit.
        """
        part = part[: self.size]
        while True:
            short = ""
            try:
                raw = self.system.answer([request for request, _ in part])
            except Exception as error:
                if not _out_of_memory(error):
                    raise
                short = str(error).strip().partition("\n")[0]
            if not short:
                return _outputs(part, raw)
            # outside of the handler: the error holds on to what the batch has in memory
            _free_memory()
            if not self.auto or len(part) == 1:
                hint = "expected a smaller --batch-size, or auto" if not self.auto else "this system needs more"
                raise UserError(f"memory is too short for a batch of {len(part)} ({short}); {hint}")
            self.size = len(part) // 2
            part = part[: self.size]


def _outputs(part: Sequence[Request], raw: Sequence[Any]) -> list[Output]:
    if len(raw) != len(part):
        raise ValueError(f"answers: {len(raw)} came back for {len(part)} requests; expected one for each")
    outputs = []
    for (request, key), said in zip(part, raw, strict=True):
        reply = as_reply(said)
        text = said if isinstance(said, str) else reply.text  # as it came, blanks and all
        outputs.append(Output(request.id, key, request.prompt, text, reply.finish))
    return outputs


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


def _say_nothing(title: str, done: int, total: int) -> None:
    """The progress of somebody who does not watch."""
