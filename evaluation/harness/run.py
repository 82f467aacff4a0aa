"""Asks a system a benchmark's questions, keeps each output as it comes, and has them scored.

    OUT/<benchmark>/asked.json, asking.json, outputs/    what is asked, how it went, what was said
    OUT/<benchmark>/result.<protocol>.json, ...          written by `benchmark_scoring.score_benchmark`

Killed at any moment, the same call resumes where it stopped, with any number of processes. Questions are read as a
stream, and only the pictures of one batch are decoded at a time.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vargpt_lightning.distributed.group import Processes
from vargpt_lightning.evaluation.base.benchmark import (
    EARLIER,
    OWN,
    PROTOCOLS,
    Benchmark,
    Record,
    check_protocol,
    rule_of,
)
from vargpt_lightning.evaluation.base.protocols import AnswerRequest, HasExpectedIds, TextModel, UnfinishedError
from vargpt_lightning.evaluation.formats.layouts import Picture, Rows
from vargpt_lightning.evaluation.harness.batcher import AUTO, Batches, Request, said
from vargpt_lightning.evaluation.harness.outputs import Output, OutputLog
from vargpt_lightning.evaluation.harness.score import ASKING, score_benchmark
from vargpt_lightning.evaluation.harness.select import Asked, Choice, check_free, choose, describe
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import write_json

Progress = Callable[[str, int, int], None]
"""Called with a title, how many are done and how many there are."""

LOOKED_AT = 8  # pictures of earlier answers that are compared with those that are there now


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
            check_protocol(protocol, (*PROTOCOLS, EARLIER, OWN))
        for name in ("limit", "max_new_tokens", "batch_size"):
            value = getattr(self, name)
            if name == "batch_size" and value == AUTO:
                continue
            if value is not None and (not isinstance(value, int) or value < 1):
                other = " or auto" if name == "batch_size" else ""
                raise UserError(f"{name}: {value!r}; expected a whole number above 0{other}")


class ScoringError(UserError):
    """All is asked and kept, but there is no figure: a group is incomplete, say. Other benchmarks can be asked."""


def run_benchmark(
    system: TextModel,
    module: Benchmark,
    data: Path,
    out: Path,
    settings: BenchmarkSettings | None = None,
    *,
    processes: Processes | None = None,
    progress: Progress | None = None,
    facts: Mapping[str, Any] | None = None,
    replace_others: bool = True,
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
        replace_others: write over the results of another system, or of the same one asked in another way.

    Raises:
        UserError: the data are of another benchmark, ids are not unique, the pictures are not those of earlier
            answers, a batch of one does not fit into memory, or another system's results are in the folder.
        ScoringError: in the first process alone, what `score_benchmark` refuses.
    """
    settings, processes = settings or BenchmarkSettings(), processes or Processes()
    folder = out / module.NAME
    rows = module.load(data, pictures=getattr(system, "needs_pictures", True))
    about = asked_of(module, settings, facts or describe(system))
    asked = replace(about, source=str(rows.source), data=str(Path(data).resolve()))
    if not replace_others:
        check_free(folder, asked)
    choice = choose(module, rows.without_pictures(), asked)
    if processes.first:
        asked.write(folder)
    if isinstance(system, HasExpectedIds):
        system.expect(module.NAME, list(choice.keys), choice.places, choice.others)
    _Asking(system, module, rows, folder, asked, choice, settings.batch_size, processes, progress or _say_nothing).run()
    processes.wait()
    if not processes.first:
        return {}
    more: dict[str, Any] = {"allow_partial": settings.allow_partial, "options": settings.options}
    try:
        rules = dict.fromkeys(rule_of(module, protocol) for protocol in settings.protocols)
        return {rule: score_benchmark(module, data, folder, rule, **more) for rule in rules}
    except UserError as error:
        raise ScoringError(str(error)) from error


def asked_of(module: Benchmark, settings: BenchmarkSettings, facts: Mapping[str, Any]) -> Asked:
    """What a system, which `facts` describes, is asked of a benchmark; where its data are is left open."""
    return Asked(
        benchmark=module.NAME,
        **facts,
        max_new_tokens=settings.max_new_tokens or module.MAX_NEW_TOKENS,
        style=settings.style,
        limit=settings.limit,
        seed=settings.seed,
    )


class _Asking:
    """One process's share of the questions that have no output yet."""

    def __init__(
        self,
        system: TextModel,
        module: Benchmark,
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
        self.before: Mapping[str, Output] = {}
        self.refused: set[tuple[str, str]] = set()

    def run(self) -> None:
        """Ask all of it, a batch at a time; what was said is on the disk before the next batch is asked."""
        keys = self.choice.keys
        self.before = before = self.log.read(set(keys.values()))
        self.refused = {(key, output.skipped) for key, output in before.items() if output.skipped}
        if self.processes.first:
            self._check_pictures()
        self.processes.wait()  # nobody writes before all have read: shares of different lists would leave holes
        left = [id_ for id_, key in keys.items() if key not in before or before[key].skipped]
        share = self.processes.share(left)
        self.done = (len(keys) - len(left)) // self.processes.world
        self.total = self.done + len(share)
        self._say()
        began = time.monotonic()
        queue: list[Request] = []
        for request in self._requests(share):
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

    def _requests(self, share: Sequence[str]) -> Iterator[Request]:
        """The share's questions with their pictures; those whose pictures cannot be opened are written as skipped."""
        for record in self.rows.take(self.choice.places[id_] for id_ in share):
            id_ = str(self.module.record_id(record))
            output = Output(id_, self.choice.keys[id_], self.module.prompt(record, self.asked.style))
            try:
                encoded = self._pictures(record)
                pictures = tuple(picture.open() for picture in encoded)
            except UserError as error:
                reason = re.sub(r" at 0x[0-9a-f]+", "", str(error))  # an address differs each time
                self._keep([replace(output, skipped=reason)])
                continue
            output = replace(output, pictures=_fingerprint(encoded))
            yield AnswerRequest(id_, output.prompt, pictures, self.asked.max_new_tokens), output

    def _pictures(self, record: Record) -> list[Picture]:
        """The record's pictures with their bytes at hand; none where they are not wanted."""
        if not self.rows.pictures:
            return []
        found = self.module.pictures(record)
        pictures = [picture for picture in found if picture is not None]
        if len(pictures) < len(found):
            raise UserError("the question has no picture")
        return [replace(picture, data=picture.bytes()) for picture in pictures]

    def _check_pictures(self) -> None:
        """Look at some pictures that were asked about earlier: those of other data have other answers.

        Raises:
            UserError: one is not what it was.
        """
        known = {each.id: each.pictures for each in self.before.values() if each.pictures and not each.skipped}
        some = sorted(known, key=self.choice.keys.__getitem__)[:LOOKED_AT] if self.rows.pictures else []
        for record in self.rows.take(self.choice.places[id_] for id_ in some):
            id_ = str(self.module.record_id(record))
            if _fingerprint(self._pictures(record)) != known[id_]:
                raise UserError(
                    f"{self.module.NAME}: the picture of {id_!r} in {self.asked.data} is not the one that the answer "
                    f"in {self.log.folder} is about; expected the same data, or another --out"
                )

    def _send(self, queue: list[Request]) -> list[Request]:
        """Ask as many as fit into memory, keep what was said, and return the others."""
        try:
            outputs = self.batches.ask(queue)
        except UnfinishedError as error:
            known = [one for one in queue if one[0].id in error.replies]
            self.log.append(said(known, [error.replies[request.id] for request, _ in known]))
            raise
        self._keep(outputs)
        handled = {output.id for output in outputs}
        return [one for one in queue if one[0].id not in handled]

    def _keep(self, outputs: Sequence[Output]) -> None:
        """Write outputs down; what was skipped for the same reason before is there already."""
        self.log.append(each for each in outputs if (each.key, each.skipped) not in self.refused)
        self.done += len(outputs)
        self._say()

    def _say(self) -> None:
        self.progress(self.module.TITLE, self.done, self.total)


def _fingerprint(pictures: Sequence[Picture]) -> str:
    """Tells pictures apart by their encoded bytes; empty for none."""
    if not pictures:
        return ""
    return hashlib.sha256(b"".join(hashlib.sha256(each.bytes()).digest() for each in pictures)).hexdigest()[:16]


def _say_nothing(title: str, done: int, total: int) -> None:
    """The progress of somebody who does not watch."""
