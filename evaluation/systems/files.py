"""Systems that are files: answers with ids, and a folder of drawings. Whatever wrote them is scored like any other.

    answers.jsonl     {"id": "...", "output": "...", "benchmark": "pope", "finish": "stop"}, a line each
    answers.json      a list of such objects, or one object of id: output
    answers.parquet   columns of the same names
    *samples_*.jsonl, *.xlsx, *.tsv, ...   as LLaVA, lmms-eval and VLMEvalKit write them: see `foreign_rows`
    drawings/         <id>.png, .jpg, .jpeg or .webp; an id with other characters as `files.file_stem` writes it

`benchmark` and `finish` may be missing; the id may be called question_id, the output prediction, response, text or
answer (the first of these that is there counts: beside a prediction, an answer is the right one). Imports no torch.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from vargpt_lightning.data.images.picture_files import PictureError, decode_picture
from vargpt_lightning.data.sources.endings import endings_text, is_picture
from vargpt_lightning.evaluation.base.files import file_stem
from vargpt_lightning.evaluation.base.protocols import AnswerRequest, Reply
from vargpt_lightning.evaluation.systems.foreign_rows import NUMBERED, ids_of, question_of, same_question
from vargpt_lightning.evaluation.systems.prediction_rows import Key, read_predictions
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import file_sha256

MISSING, DUPLICATE, UNKNOWN = ALLOWED = ("missing", "duplicate", "unknown")


class Predictions:
    """A file of answers; implements `TextModel` by benchmark and id.

    Ids that are missing, there twice, or unknown to the benchmark are counted, and refused unless `allow` names them:
    a missing one is then answered with nothing, of two the first counts, an unknown one is left aside.

    Args:
        path: .jsonl, .json or .parquet.
        allow: some of missing, duplicate, unknown; one word with commas between will do.

    Raises:
        UserError: the file cannot be read, a row has no id or an output that is no text, or ids are there twice.
    """

    batch_size = 1024
    needs_pictures = False

    def __init__(self, path: str | Path, allow: Sequence[str] | str = ()) -> None:
        self.path, self.allow = Path(path), _allowed(allow)
        self.name = self.path.stem
        self.counts: dict[str, int] = dict.fromkeys(ALLOWED, 0)
        self._benchmark = ""
        self._answers: dict[Key, Reply] = {}
        doubled: Counter[Key] = Counter()
        self._foreign: list[tuple[Mapping[str, Any], Reply]] = []
        self._questions: dict[str, str] = {}
        self._placed: set[Key] = set()
        self._expected: set[str] = set()
        for key, reply, row in read_predictions(self.path):
            if reply is None:
                continue
            if row:
                self._foreign.append((row, reply))
                continue
            if key in self._answers:
                doubled[key] += 1
            self._answers.setdefault(key, reply)
        self.counts[DUPLICATE] = sum(doubled.values())
        _refuse(self.path, {DUPLICATE: [id_ for _, id_ in doubled.elements()]}, self.allow)

    @cached_property
    def digest(self) -> str:
        """A hash of the file."""
        return file_sha256(self.path)[:16]

    @property
    def settings(self) -> dict[str, Any]:
        """What an answer depends on besides the file."""
        return {"adapter": "predictions", "allow": sorted(self.allow)}

    def expect(
        self,
        benchmark: str,
        ids: Sequence[str],
        known: Collection[str] = (),
        others: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare for a benchmark, and compare its ids with those that are there; `counts` holds what was found.

        Answers to questions that are `known` and not asked, as under a limit, are left aside. `others` leads from what
        other projects call a question to its id.

        Raises:
            UserError: an id is missing or unknown, and this is not allowed.
        """
        self._benchmark = benchmark
        self._place(benchmark, [*dict.fromkeys([*known, *ids])], others or {})
        there = {id_ for name, id_ in self._answers if name in ("", benchmark)}
        unknown = sorted(there.difference(ids, known))
        found = {MISSING: [id_ for id_ in ids if id_ not in there], UNKNOWN: unknown}
        self.counts |= {kind: len(those) for kind, those in found.items()}
        _refuse(self.path, found, self.allow, f" for {benchmark}")

    def answer(self, requests: Sequence[AnswerRequest]) -> list[Reply]:
        """The answers that are there.

        Raises:
            UserError: one is missing, and this is not allowed.
        """
        if self._benchmark not in self._expected:
            self._place(self._benchmark, [request.id for request in requests], {})
        for request in requests:
            said = self._questions.get(request.id, "")
            if said and not same_question(said, request.prompt):
                raise UserError(
                    f"{self.path}: the answer to {request.id!r} is to {said[:80]!r}, and the question is "
                    f"{request.prompt[:80]!r}; expected the answers of this benchmark's own questions"
                )
        replies = [self._find(request.id) for request in requests]
        lost = [request.id for request, reply in zip(requests, replies, strict=True) if reply is None]
        _refuse(self.path, {MISSING: lost}, self.allow)
        return [reply or Reply("") for reply in replies]

    def _place(self, benchmark: str, known: Sequence[str], others: Mapping[str, str]) -> None:
        """Find the questions that other projects' rows mean, among those that the benchmark has."""
        there, doubled = {**others, **{id_: id_ for id_ in known}}, []
        rows = [] if benchmark in self._expected else self._foreign
        self._expected.add(benchmark)
        for row, reply in rows:
            ids = ids_of(row, benchmark)
            numbered = [id_.removeprefix(NUMBERED) for id_ in ids if id_.startswith(NUMBERED)]
            places = [known[int(each)] for each in numbered if each.isdigit() and int(each) < len(known)]
            id_ = next((there[each] for each in (*ids, *places) if each in there), ids[0] if ids else "?")
            if (benchmark, id_) in self._placed:
                doubled.append(id_)
                continue
            self._placed.add((benchmark, id_))
            self._answers[benchmark, id_] = reply
            self._questions[id_] = question_of(row)
        self.counts[DUPLICATE] += len(doubled)
        _refuse(self.path, {DUPLICATE: doubled}, self.allow)

    def _find(self, id_: str) -> Reply | None:
        return self._answers.get((self._benchmark, id_)) or self._answers.get(("", id_))


class Requested(Protocol):
    """A request to draw, as `Drawing` is one."""

    @property
    def id(self) -> str: ...
    @property
    def prompt(self) -> str: ...
    @property
    def seed(self) -> int: ...


class Drawings:
    """A folder of drawings; implements `ImageModel` by id, once `expect_drawings` told which prompt has which id.

    Args:
        folder: pictures named by id, in folders below it where ids have slashes.
        allow: some of missing, duplicate, unknown, as for `Predictions`; a missing one is answered without a picture.

    Raises:
        UserError: the folder has no pictures, or two for one id.
    """

    batch_size = 64

    def __init__(self, folder: str | Path, allow: Sequence[str] | str = ()) -> None:
        self.folder, self.allow = Path(folder), _allowed(allow)
        self.name = self.folder.resolve().name
        self.counts: dict[str, int] = dict.fromkeys(ALLOWED, 0)
        self._files: dict[str, Path] = {}
        self._ids: dict[tuple[str, int], str] = {}
        doubled: list[str] = []
        for path in _pictures(self.folder):
            stem = path.relative_to(self.folder).with_suffix("").as_posix()
            if stem in self._files:
                doubled.append(stem)
            self._files.setdefault(stem, path)
        if not self._files:
            raise UserError(f"{self.folder}: holds no pictures; expected <id> with one of {endings_text()}")
        self.counts[DUPLICATE] = len(doubled)
        _refuse(self.folder, {DUPLICATE: doubled}, self.allow)

    @cached_property
    def digest(self) -> str:
        """A hash of all files' names and contents."""
        total = hashlib.sha256()
        for stem in sorted(self._files):
            total.update(f"{stem}\0{file_sha256(self._files[stem])}\0".encode())
        return total.hexdigest()[:16]

    @property
    def settings(self) -> dict[str, Any]:
        """What a drawing depends on besides the files."""
        return {"adapter": "drawings", "allow": sorted(self.allow)}

    def expect_drawings(self, requests: Iterable[Requested]) -> None:
        """Learn the requests' ids, and compare them with the files; `counts` holds what was found.

        Raises:
            UserError: a drawing is missing or unknown, and this is not allowed; or two ids have one prompt and seed.
        """
        requests = list(requests)
        for request in requests:
            known = self._ids.setdefault((request.prompt, request.seed), request.id)
            if known != request.id:
                raise UserError(
                    f"{self.folder}: the requests {known!r} and {request.id!r} have the same prompt and seed; expected "
                    "seeds that tell them apart"
                )
        stems = {self._stem(request.id) for request in requests}
        lost = [request.id for request in requests if self._stem(request.id) is None]
        found = {MISSING: lost, UNKNOWN: sorted(set(self._files) - stems)}
        self.counts |= {kind: len(those) for kind, those in found.items()}
        _refuse(self.folder, found, self.allow)

    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Reply]:
        """The drawings that are there.

        Raises:
            UserError: nobody told the id of a prompt, a drawing is missing and this is not allowed, or a file is no
                picture.
        """
        return [self._draw(request) for request in zip(prompts, seeds, strict=True)]

    def _draw(self, request: tuple[str, int]) -> Reply:
        if request not in self._ids:
            raise UserError(f"{self.folder}: no id is known for the prompt {request[0]!r} with the seed {request[1]}")
        stem = self._stem(self._ids[request])
        if stem is None:
            _refuse(self.folder, {MISSING: [self._ids[request]]}, self.allow)
            return Reply("")
        return Reply("", (_open(self._files[stem]),))

    def _stem(self, id_: str) -> str | None:
        return next((stem for stem in (id_, file_stem(id_)) if stem in self._files), None)


def _allowed(allow: Sequence[str] | str) -> frozenset[str]:
    given = [name.strip() for name in (allow.split(",") if isinstance(allow, str) else allow) if name.strip()]
    if unknown := sorted(set(given) - set(ALLOWED)):
        raise UserError(f"allow: {unknown[0]!r}; expected some of {', '.join(ALLOWED)}")
    return frozenset(given)


def _refuse(path: Path, found: Mapping[str, Sequence[str]], allowed: frozenset[str], what: str = "") -> None:
    """Refuses what was found and is not allowed, all kinds in one message, with counts and an example of each."""
    wrong = {kind: those for kind, those in found.items() if those and kind not in allowed}
    if wrong:
        listed = ", ".join(f"{len(those)} {kind} (such as {those[0]!r})" for kind, those in wrong.items())
        raise UserError(f"{path}: ids{what}: {listed}; allow by name: {', '.join(wrong)}")


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder")
    found = (path for path in folder.rglob("*") if is_picture(path.name) and path.is_file())
    return sorted(path for path in found if not path.name.startswith("."))


def _open(path: Path) -> Image.Image:
    """The drawing as training reads pictures: upright, 16 bits scaled to 8, what is transparent white."""
    try:
        return decode_picture(path.read_bytes(), str(path))
    except (PictureError, OSError) as error:
        raise UserError(f"{path}: not readable as a picture ({error})") from error
