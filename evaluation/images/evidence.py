"""What is found out about drawings for a benchmark of prompt-following: answers, objects, likeness to words.

    OUT/<benchmark>/outputs/*.jsonl   one row a check: id (picture#check), key, prompt, output

Rows are kept as they come: killed, the same command resumes, with any number of processes. A row's key covers what was
asked, of whom, and the picture's file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from vargpt_lightning.data.images.picture_files import PictureError, decode_picture
from vargpt_lightning.distributed.group import Processes
from vargpt_lightning.evaluation.base.benchmark import Record
from vargpt_lightning.evaluation.base.files import short_hash
from vargpt_lightning.evaluation.base.prompt_benchmark import (
    DETECTIONS,
    QUESTION,
    SIMILARITY,
    Check,
    Detection,
    Detector,
    NamesColours,
    PromptBenchmark,
    RenamesObjects,
    as_detection,
    check_id,
)
from vargpt_lightning.evaluation.base.protocols import AnswerRequest, HasExpectedIds, TextModel, UnfinishedError
from vargpt_lightning.evaluation.harness.batcher import AUTO, Batches, Request, said
from vargpt_lightning.evaluation.harness.outputs import Output, OutputLog, output_key
from vargpt_lightning.evaluation.harness.select import describe
from vargpt_lightning.utils.errors import UserError

Progress = Callable[[str, int, int], None]
Paint = Callable[[Image.Image, Sequence[Detection]], list[Detection]]
BATCH = 16
TITLES = {QUESTION: "questions", DETECTIONS: "objects", SIMILARITY: "likeness"}
NEEDS = {
    QUESTION: "--judge MODEL, which answers questions about pictures, or a file of answers",
    DETECTIONS: "--detector MODEL, or a file of detections",
    SIMILARITY: "--clip-weights, or the likeness in the file that --judge names",
}


@dataclass(frozen=True)
class Shown:
    """A picture that is judged: its id, its prompt's record, and its file; None where files have all there is to know.

    `part` is its place among four quarters of the file, None where the file is the picture.
    """

    id: str
    record: Record = field(repr=False)
    path: Path | None = None
    part: int | None = None

    def open(self) -> Image.Image:
        """The picture, upright. Raises UserError for one that is not there or does not decode."""
        if self.path is None:
            raise UserError(f"picture {self.id!r}: there is no file; expected a folder of pictures")
        try:
            picture = decode_picture(self.path.read_bytes(), str(self.path))
        except (PictureError, OSError) as error:
            raise UserError(f"{self.path}: not readable as a picture ({error})") from error
        if self.part is None:
            return picture
        side = picture.width // 2
        left, top = self.part % 2 * side, self.part // 2 * side
        return picture.crop((left, top, left + side, top + side))

    @property
    def stamp(self) -> str:
        """Tells the file from another one of its name."""
        if self.path is None:
            return ""
        about = self.path.stat()
        return short_hash(about.st_size, about.st_mtime_ns, self.part)


@dataclass(frozen=True)
class Observers:
    """Who finds out: a system that answers, a detector, a CLIP model; None where there is none.

    `paint` names the colours of objects, for benchmarks that ask for them.
    """

    judge: TextModel | None = None
    detector: Detector | None = None
    clip: Any = None
    paint: Paint | None = None

    def of(self, kind: str) -> Any:
        """Who does checks of a kind. Raises UserError where nobody does."""
        by_kind = {QUESTION: self.judge, DETECTIONS: self.detector, SIMILARITY: self.clip or self._file()}
        if by_kind[kind] is None:
            raise UserError(f"nobody is there for {TITLES[kind]}; expected {NEEDS[kind]}")
        return by_kind[kind]

    def _file(self) -> TextModel | None:
        return self.judge if self.judge is not None and not getattr(self.judge, "needs_pictures", True) else None


Task = tuple[Shown, Check, Output]


def gather(
    module: PromptBenchmark,
    shown: Sequence[Shown],
    observers: Observers,
    folder: Path,
    processes: Processes | None = None,
    progress: Progress | None = None,
) -> dict[str, dict[str, Any]]:
    """What is known of each picture by the names of its checks, once all that was not known is found out.

    Args:
        folder: OUT/<benchmark>/outputs.

    Raises:
        UserError: nobody is there for a kind of check, a picture does not decode, or a system refuses a question.
    """
    processes = processes or Processes()
    log = OutputLog(folder, processes.rank)
    tasks: dict[str, list[Task]] = {}
    for one in shown:
        stamp = one.stamp
        for check in module.checks(one.record):
            tasks.setdefault(check.kind, []).append(
                (one, check, Output(check_id(one.id, check.name), stamp, check.text))
            )
    keyed: list[Task] = []
    for kind, those in tasks.items():
        about = _about(observers, kind)
        for one, check, output in those:
            context = short_hash(about, output.key, check.colours, check.max_new_tokens)
            keyed.append((one, check, replace(output, key=output_key(module.NAME, output.id, check.text, context))))
    _announce(module, observers, keyed)
    before = log.read({output.key for _, _, output in keyed})
    processes.wait()  # nobody writes before all have read
    for kind in tasks:
        left = [task for task in keyed if task[1].kind == kind and task[2].key not in before]
        _ask(module, kind, processes.share(left), observers, log, progress)
    processes.wait()
    outputs = log.read({output.key for _, _, output in keyed})
    found: dict[str, dict[str, Any]] = {one.id: {} for one in shown}
    for one, check, output in keyed:
        found[one.id][check.name] = _read(check, outputs[output.key])
    return found


def _about(observers: Observers, kind: str) -> list[Any]:
    """What tells a finding from that of others: the system, and the one that names colours."""
    return [describe(observers.of(kind)), describe(observers.clip) if kind == DETECTIONS and observers.paint else None]


def _announce(module: PromptBenchmark, observers: Observers, tasks: Sequence[Task]) -> None:
    """Tell a file of answers what it will be asked: it says at once what it lacks."""
    judge = observers.judge
    if isinstance(judge, HasExpectedIds):
        ids = [output.id for _, check, output in tasks if observers.of(check.kind) is judge]
        judge.expect(module.NAME, ids)


def _ask(
    module: PromptBenchmark,
    kind: str,
    tasks: Sequence[Task],
    observers: Observers,
    log: OutputLog,
    progress: Progress | None,
) -> None:
    source = observers.of(kind)
    left, done = list(tasks), 0
    batches = None if observers.judge is None or source is not observers.judge else Batches(observers.judge, AUTO)
    while left:
        if progress is not None:
            progress(f"{module.TITLE}, {TITLES[kind]}", done, len(tasks))
        size = batches.size if batches else int(getattr(source, "batch_size", None) or BATCH)
        part, seen = left[:size], _pictures(source, left[:size])
        if batches is not None:
            requests = [
                (AnswerRequest(output.id, check.text, pictures, check.max_new_tokens), output)
                for (_, check, output), pictures in zip(part, seen, strict=True)
            ]
            outputs = _answered(batches, requests, log)
        elif kind == DETECTIONS:
            outputs = _detected(module, source, part, seen, observers)
        else:
            outputs = _likeness(source, part, seen)
        if refused := [output for output in outputs if output.skipped]:
            raise UserError(f"{module.NAME}: {refused[0].skipped}")
        log.append(outputs)
        names = {output.id for output in outputs}
        left, done = [task for task in left if task[2].id not in names], done + len(outputs)
    if progress is not None and tasks:
        progress(f"{module.TITLE}, {TITLES[kind]}", done, len(tasks))


def _answered(batches: Batches, requests: Sequence[Request], log: OutputLog) -> list[Output]:
    """The answers to some of the requests; of a batch that breaks off, what was said is kept."""
    try:
        return batches.ask(requests)
    except UnfinishedError as error:
        done = [one for one in requests if one[0].id in error.replies]
        log.append(said(done, [error.replies[request.id] for request, _ in done]))
        raise


def _pictures(source: Any, part: Sequence[Task]) -> list[tuple[Image.Image, ...]]:
    """The pictures of a batch, each opened once; none for a source that reads files."""
    if not getattr(source, "needs_pictures", True):
        return [()] * len(part)
    opened: dict[str, Image.Image] = {}
    for one, _, _ in part:
        if one.id not in opened:
            opened[one.id] = one.open()
    return [(opened[one.id],) for one, _, _ in part]


def _detected(
    module: PromptBenchmark,
    detector: Detector,
    part: Sequence[Task],
    seen: Sequence[tuple[Image.Image, ...]],
    observers: Observers,
) -> list[Output]:
    found = detector.detect([one.id for one, _, _ in part], [pictures[0] for pictures in seen if pictures])
    names = module.LABELS if isinstance(module, RenamesObjects) else {}
    outputs = []
    for (one, check, output), objects, pictures in zip(part, found, seen, strict=True):
        named = [replace(each, label=names.get(each.label, each.label)) for each in objects]
        bare = [place for place, each in enumerate(named) if each.label in check.colours and not each.colour]
        if bare and observers.paint is not None:
            picture = pictures[0] if pictures else one.open()
            for place, each in zip(bare, observers.paint(picture, [named[place] for place in bare]), strict=True):
                named[place] = each
        outputs.append(replace(output, output=json.dumps([each.row() for each in named])))
    return outputs


def _likeness(clip: Any, part: Sequence[Task], seen: Sequence[tuple[Image.Image, ...]]) -> list[Output]:
    from vargpt_lightning.evaluation.features.clip import SCALE
    from vargpt_lightning.evaluation.metrics.clip_score import cosine_scores

    texts, _ = clip.texts([check.text for _, check, _ in part])
    cosines = cosine_scores(clip.pictures([pictures[0] for pictures in seen]), texts) / SCALE
    return [replace(output, output=repr(float(each))) for (_, _, output), each in zip(part, cosines, strict=True)]


def _read(check: Check, output: Output) -> Any:
    if check.kind == DETECTIONS:
        return [as_detection(row, output.id) for row in json.loads(output.output)]
    if check.kind == QUESTION:
        return output.output
    try:
        return float(output.output)
    except ValueError as error:
        raise UserError(f"{output.id}: the likeness is {output.output!r}; expected a number") from error


def colours_of(module: PromptBenchmark, clip: Any) -> Paint | None:
    """Who names the colours that a benchmark asks for, with a CLIP model; None where it asks for none."""
    if not isinstance(module, NamesColours):
        return None
    from vargpt_lightning.evaluation.features.colours import ColourClassifier

    return ColourClassifier(clip, module.COLOURS, module.COLOUR_TEXTS)
