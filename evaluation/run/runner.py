"""Asks a model everything that the evaluation wants to know and keeps each answer as it comes.

What is asked is written down before it is scored, and scoring reads the files alone:

    evaluation/
        inputs.json            settings, model, sampling, how many answers are expected
        pictures.jsonl, real/  the real pictures
        answers.jsonl          one row a question: id, hash, kind, split, prompt, picture, expected, answer, drew
        drawings.jsonl         one row a request: id, hash, split, prompt, seed, picture, text, drew, files, scales
        drawings/              the drawings, and strips of the pictures after each scale
        reconstructions.jsonl, reconstructions/
        repeats.jsonl          some requests drawn with other seeds: as drawings.jsonl, and `of`, the request's id
        costs.jsonl, cost.json what a drawing has taken: seconds and memory; the only figures that no seed settles
        edits.jsonl, edits/    one row a picture to change: what the change has to show, and the changed picture
        edit_verdicts.jsonl    what the judge says of it
        conversations.jsonl    one row a conversation: each turn, whether a drawing was wanted and whether one came
        asked_back.jsonl       answers to questions about the model's own drawings of scenes
        scene_verdicts.jsonl, geneval.jsonl      what the judge of scenes says of each drawing
        training_pictures.png, .json             small training pictures, where scenes are asked for
        nearest_training.jsonl                   the one that each drawing of a scene is nearest to
        judgements.jsonl       what judges say: id, judge, score, label
        metrics.json           written by `scoring.score_folder`

A row's hash covers the question, the picture, the model and the sampling settings: a run killed at any moment goes on
where it stopped, and an answer of another model, or to another question, is never reused.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from PIL import Image

from vargpt_lightning.data.scenes.scene import scene_of
from vargpt_lightning.data.scenes.wording import own_question
from vargpt_lightning.evaluation import judges
from vargpt_lightning.evaluation.base.files import (
    digest,
    file_stem,
    is_whole,
    keep_pictures,
    open_picture,
    rgb,
    save_picture,
    short_hash,
    side_by_side,
)
from vargpt_lightning.evaluation.base.protocols import (
    AnswerRequest,
    Drawing,
    Edit,
    EditModel,
    ImageModel,
    Question,
    RealPicture,
    Reply,
    Talk,
    TalkModel,
    TextModel,
    as_reply,
)
from vargpt_lightning.evaluation.features.efficientnet import FeatureFunction
from vargpt_lightning.evaluation.run.cost import COSTS, BatchCost
from vargpt_lightning.evaluation.run.scoring import score_folder
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import append_jsonl, plain, read_json, read_jsonl, write_json, write_jsonl

Progress = Callable[[str, int, int], None]
"""Called with a title, how many are done and how many there are."""

Reconstruct = Callable[[Sequence[Image.Image]], Sequence[Image.Image]]
"""Pictures through the image tokenizer and back: the best that any drawing with its codes can be."""


REPEATED = 64
AGAIN, SEEDS_APART = "~", 7_777_777
"""What stands between a request's id and the number of its further drawing, and how far apart their seeds are."""

Item = Question | Drawing | RealPicture | Talk | Edit
Work = Callable[[Sequence[Any]], list[dict[str, Any]]]
"""A batch of items in, one row of facts for each out."""


@dataclass(frozen=True)
class EvaluationSettings:
    """How to evaluate; none of these changes an answer.

    Args:
        answer_batch: questions asked together.
        draw_batch: pictures drawn together.
        feature_size: pixels that pictures are resized to for the image metrics.
        blur_sigma: Gaussian blur of the baseline, in pixels of the pictures.
        seed: of the noise baseline.
        aims: what a headline figure should reach, by its key: identification_1, identification_5, kid, questions,
            switch_drawing_prompts, switch_questions (shares from 0 to 1; KID x 1000).
        judges: names of judges that score the drawings besides.

    Raises:
        UserError: a batch below 1, a blur that is not above 0, or a judge that cannot be used.
    """

    answer_batch: int = 32
    draw_batch: int = 16
    feature_size: int = 128
    blur_sigma: float = 2.0
    seed: int = 0
    aims: Mapping[str, float] = field(default_factory=dict)
    judges: Sequence[str] = ()

    def __post_init__(self) -> None:
        for key in ("answer_batch", "draw_batch"):
            if getattr(self, key) < 1:
                raise UserError(f"evaluation {key}: {getattr(self, key)}; expected at least 1")
        if self.blur_sigma <= 0:
            raise UserError(f"evaluation blur_sigma: {self.blur_sigma}; expected more than 0 pixels")
        for name in self.judges:
            judges.get(name)


@dataclass(frozen=True)
class _Job:
    """One file of rows: what makes a batch of them, and from which items."""

    name: str
    work: Work
    batch_size: int
    items: Sequence[Item]


def evaluate(
    answerer: TextModel | None,
    drawer: ImageModel | None,
    *,
    questions: Sequence[Question],
    drawings: Sequence[Drawing],
    pictures: Sequence[RealPicture],
    talks: Sequence[Talk] = (),
    repeats: int = 0,
    edits: Sequence[Edit] = (),
    out: Path | str,
    settings: EvaluationSettings | None = None,
    model: str = "",
    sampling: Mapping[str, Any] | None = None,
    training_answers: Mapping[str, Mapping[str, int]] | None = None,
    training_prompts: Mapping[str, Mapping[str, Mapping[str, int]]] | None = None,
    reconstruct: Reconstruct | None = None,
    features: FeatureFunction | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Asks, draws, scores, and returns what it wrote to metrics.json; call it again to go on after a kill.

    Args:
        answerer: answers the questions; None leaves them out.
        drawer: draws; None leaves the drawings out.
        questions: about the real pictures, by their keys.
        drawings: requests to draw, one seed each.
        talks: conversations to hold, if the answerer holds any.
        repeats: further drawings, with other seeds, of at most `REPEATED` requests spread over all.
        edits: pictures to change, if the drawer changes any.
        pictures: the real pictures, training and held-out, at the model's resolution: the gallery of identification.
        out: the folder, such as `runs/<name>/evaluation`.
        model: identifies the weights, such as a checkpoint's hash; answers of another are asked again.
        sampling: the sampling settings, recorded and part of each row's hash.
        training_answers: kind -> right answer -> count among the training questions, for the majority baseline.
        training_prompts: kind -> text of a training question -> right answer -> count, for the baseline without
            pictures.
        reconstruct: the image tokenizer there and back, for the upper bound.
        features: pictures to features; None takes EfficientNet-Lite0.

    Raises:
        UserError: two items share an id, or an item names a picture that is not there.
    """
    out, settings, say = Path(out), settings or EvaluationSettings(), progress or _say_nothing
    digests = _check(questions, drawings, pictures)
    context = plain({"model": model, "sampling": sampling or {}})
    jobs: list[_Job] = []
    if answerer is not None:
        images = {picture.key: picture.image for picture in pictures}
        jobs.append(_Job("answers", _asker(answerer, images), settings.answer_batch, questions))
    if drawer is not None:
        jobs.append(_Job("drawings", _painter(drawer, out), settings.draw_batch, drawings))
        if repeats:
            jobs.append(_Job("repeats", _painter(drawer, out), settings.draw_batch, repeated(drawings, repeats)))
    if edits and isinstance(drawer, EditModel):
        jobs.append(_Job("edits", _editor(drawer, out), settings.draw_batch, edits))
    if talks and isinstance(answerer, TalkModel):
        jobs.append(_Job("conversations", _talker(answerer), settings.draw_batch, talks))
    if reconstruct is not None:
        jobs.append(_Job("reconstructions", _copier(reconstruct, out), settings.draw_batch, pictures))
    _open_folder(out, context, [job.name for job in jobs])
    inputs = {"version": 1, **context, "settings": asdict(settings), "training_answers": training_answers or {}}
    inputs |= {"training_prompts": training_prompts or {}}
    write_json(out / "inputs.json", {**inputs, "expected": {job.name: len(job.items) for job in jobs}})
    keep_pictures(out, pictures, digests)
    for job in jobs:
        _collect(out / f"{job.name}.jsonl", job, digests, context, say)
    if answerer is not None:
        _ask_back(answerer, out, pictures, settings, context, say)
    return score_folder(out, features=features, progress=say)


def _ask_back(
    answerer: TextModel,
    out: Path,
    pictures: Sequence[RealPicture],
    settings: EvaluationSettings,
    context: Mapping[str, Any],
    say: Progress,
) -> None:
    """Ask the model about its own drawings of scenes what was asked for: does it see what it drew?"""
    scenes = {picture.key: scene_of(picture.scene) for picture in pictures if picture.scene}
    drawn = [row for row in read_jsonl(out / "drawings.jsonl") if row.get("picture") in scenes and row["files"]]
    items = []
    for row in drawn:
        question, answer = own_question(scenes[row["picture"]])
        items.append(Question(row["id"], scenes[row["picture"]].kind, question, answer, row["id"], row["split"]))
    images = {row["id"]: open_picture(out, row) for row in drawn}
    digests = {key: digest(image) for key, image in images.items()}
    job = _Job("asked_back", _asker(answerer, images), settings.answer_batch, items)
    _collect(out / f"{job.name}.jsonl", job, digests, context, say)


def _open_folder(out: Path, context: Mapping[str, Any], wanted: Collection[str]) -> None:
    """Clears away what would mislead: old figures, and what another model said to what is not asked this time."""
    (out / "metrics.json").unlink(missing_ok=True)
    before = read_json(out / "inputs.json") if (out / "inputs.json").is_file() else {}
    if any(before.get(key) != value for key, value in context.items()):
        every = {"answers", "drawings", "repeats", "edits", "reconstructions", "asked_back", "conversations"}
        for name in every - set(wanted):
            (out / f"{name}.jsonl").unlink(missing_ok=True)


def _say_nothing(title: str, done: int, total: int) -> None:
    """The progress of somebody who does not watch."""


def _check(
    questions: Sequence[Question], drawings: Sequence[Drawing], pictures: Sequence[RealPicture]
) -> dict[str, str]:
    """Refuses doubled ids and unknown pictures; returns the pictures' digests by key."""
    groups: dict[str, Sequence[Item]] = {"question": questions, "drawing": drawings, "picture": pictures}
    for what, items in groups.items():
        ids = [_id(item) for item in items]
        seen: set[str] = set()
        for id_ in ids:
            if id_ in seen:
                raise UserError(f"evaluation: two {what}s have the id {id_!r}; expected each once")
            seen.add(id_)
    digests = {picture.key: digest(picture.image) for picture in pictures}
    asked: list[Question | Drawing] = [*questions, *drawings]
    for item in asked:
        if item.picture is not None and item.picture not in digests:
            raise UserError(f"evaluation: {item.id!r} is about the picture {item.picture!r}, which is not given")
    return digests


def _collect(file: Path, job: _Job, digests: Mapping[str, str], context: Mapping[str, Any], say: Progress) -> None:
    """Does what is left of a job, a batch at a time, and appends each batch's rows once they are whole."""
    items = {_id(item): item for item in job.items}
    hashes = {id_: short_hash(_facts(item), digests.get(_picture(item) or ""), context) for id_, item in items.items()}
    stored = read_jsonl(file)
    valid = (row for row in stored if row.get("hash") and hashes.get(str(row.get("id"))) == row["hash"])
    kept = {row["id"]: row for row in valid if is_whole(file.parent, row)}
    if len(kept) != len(stored):
        write_jsonl(file, kept.values())
    left = [id_ for id_ in items if id_ not in kept]
    say(job.name, len(kept), len(items))
    for start in range(0, len(left), job.batch_size):
        batch = left[start : start + job.batch_size]
        rows = job.work([items[id_] for id_ in batch])
        append_jsonl(file, [{"id": id_, "hash": hashes[id_], **row} for id_, row in zip(batch, rows, strict=True)])
        say(job.name, len(kept) + start + len(batch), len(items))


def _id(item: Item) -> str:
    return item.key if isinstance(item, RealPicture) else item.id


def _picture(item: Item) -> str | None:
    if isinstance(item, Talk | Edit):
        return None
    return item.key if isinstance(item, RealPicture) else item.picture


def _facts(item: Item) -> dict[str, Any]:
    """All that an answer's row says of its request: a row written for other facts is not reused."""
    return {each.name: getattr(item, each.name) for each in fields(item) if each.name != "image"}


def _asker(answerer: TextModel, images: Mapping[str, Image.Image]) -> Work:
    def ask(batch: Sequence[Question]) -> list[dict[str, Any]]:
        asked = [AnswerRequest(question.id, question.prompt, (images[question.picture],)) for question in batch]
        replies = _replies(answerer.answer(asked), len(batch), "answers")
        return [_answer_row(question, reply) for question, reply in zip(batch, replies, strict=True)]

    return ask


def _answer_row(question: Question, reply: Reply) -> dict[str, Any]:
    row = {key: getattr(question, key) for key in ("kind", "split", "prompt", "picture", "options")}
    return {**row, "expected": question.answer, "answer": reply.text, "drew": reply.drew}


def _talker(answerer: TalkModel) -> Work:
    def talk(batch: Sequence[Talk]) -> list[dict[str, Any]]:
        rows = []
        for held, replies in zip(batch, answerer.talk(batch), strict=True):
            said = _replies(replies, len(held.turns), "turns")
            turns = [
                {"prompt": prompt, "wanted": wanted, "drew": reply.drew, "text": reply.text}
                for prompt, wanted, reply in zip(held.turns, held.draws, said, strict=True)
            ]
            rows.append({"turns": turns})
        return rows

    return talk


def _painter(drawer: ImageModel, out: Path) -> Work:
    def draw(batch: Sequence[Drawing]) -> list[dict[str, Any]]:
        with BatchCost() as cost:
            raw = drawer.draw([drawing.prompt for drawing in batch], [drawing.seed for drawing in batch])
        replies = _replies(raw, len(batch), "drawings")
        append_jsonl(out / COSTS, cost.rows([drawing.id for drawing in batch]))
        rows = [_drawing_row(drawing, reply, out) for drawing, reply in zip(batch, replies, strict=True)]
        of = [drawing.id.rpartition(AGAIN)[0] for drawing in batch]
        return [row | ({"of": id_} if id_ else {}) for row, id_ in zip(rows, of, strict=True)]

    return draw


def repeated(drawings: Sequence[Drawing], times: int) -> list[Drawing]:
    """Return requests with other seeds, `times` each, for at most `REPEATED` of some drawings, spread over all."""
    count = min(len(drawings), REPEATED)
    some = [drawings[place * len(drawings) // count] for place in range(count)]
    return [
        replace(drawing, id=f"{drawing.id}{AGAIN}{n}", seed=drawing.seed + n * SEEDS_APART)
        for drawing in some
        for n in range(1, times + 1)
    ]


def _drawing_row(drawing: Drawing, reply: Reply, out: Path) -> dict[str, Any]:
    files, scales, counts = [], [], []
    for number, (picture, progress) in enumerate(zip(reply.pictures, reply.progress, strict=True)):
        stem = f"drawings/{file_stem(drawing.id)}" + (f".{number}" if number else "")
        files.append(f"{stem}.png")
        save_picture(out / files[-1], picture)
        if progress:
            scales.append(f"{stem}.scales.png")
            counts.append(len(progress))
            save_picture(out / scales[-1], side_by_side(progress))
    row = {key: getattr(drawing, key) for key in ("split", "prompt", "seed", "picture")}
    return {**row, "text": reply.text, "drew": reply.drew, "files": files, "scales": scales, "scale_counts": counts}


def _editor(drawer: EditModel, out: Path) -> Work:
    def edit(batch: Sequence[Edit]) -> list[dict[str, Any]]:
        shown = [rgb(Image.open(io.BytesIO(base64.b64decode(each.shown)))) for each in batch]
        raw = drawer.edit([each.prompt for each in batch], shown, [each.seed for each in batch])
        rows = []
        for each, before, reply in zip(batch, shown, _replies(raw, len(batch), "edits"), strict=True):
            save_picture(out / (kept := f"edits/{file_stem(each.id)}.before.png"), before)
            files = [f"edits/{file_stem(each.id)}.{number}.png" for number in range(len(reply.pictures))]
            for file, picture in zip(files, reply.pictures, strict=True):
                save_picture(out / file, picture)
            about = {key: getattr(each, key) for key in ("split", "prompt", "seed", "scene")}
            rows.append({**about, "text": reply.text, "drew": reply.drew, "before": kept, "files": files})
        return rows

    return edit


def _copier(reconstruct: Reconstruct, out: Path) -> Work:
    def copy(batch: Sequence[RealPicture]) -> list[dict[str, Any]]:
        rows = []
        for picture, copied in zip(batch, reconstruct([picture.image for picture in batch]), strict=True):
            file = f"reconstructions/{file_stem(picture.key)}.png"
            save_picture(out / file, copied)
            rows.append({"split": picture.split, "files": [file]})
        return rows

    return copy


def _replies(raw: Sequence[Any], count: int, what: str) -> list[Reply]:
    if len(raw) != count:
        raise ValueError(f"{what}: {len(raw)} came back for {count} requests; expected one for each")
    return [as_reply(one) for one in raw]
