"""What evaluation asks, and the two small protocols of those it asks: something that answers, something that draws.

Evaluation never sees a LightningModule. Whatever has `answer` or `draw` is scored by the same code: a model of this
project, somebody else's, or a service.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

from PIL import Image

from vargpt_lightning.data.shards.records import DRAWN, DRAWN_MARK, SEEN, PicturePart, Record
from vargpt_lightning.utils.errors import UserError

START_TOKEN = "<image_gen_start>"
TRAIN = "train"
OWN = "own"
"""The kind of questions whose corpus names none."""


@dataclass(frozen=True)
class Question:
    """One question about one picture; `picture` is a RealPicture's key, `split` "train" a picture trained on."""

    id: str
    kind: str
    prompt: str
    answer: str
    picture: str
    split: str = TRAIN
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Drawing:
    """One picture asked for in words; `picture` is the key of the real picture that the words name, if there is one."""

    id: str
    prompt: str
    seed: int
    picture: str | None = None
    split: str = TRAIN


@dataclass(frozen=True)
class Edit:
    """A picture to change as the words say.

    `shown` is its PNG file in base64; `scene` says what the changed picture has to show, as a RealPicture's does.
    """

    id: str
    prompt: str
    seed: int
    shown: str = field(repr=False)
    split: str = TRAIN
    scene: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Talk:
    """A conversation to hold: what the user says turn by turn, and which of these ask for a drawing."""

    id: str
    turns: tuple[str, ...]
    draws: tuple[bool, ...]
    seed: int = 0


@dataclass(frozen=True)
class RealPicture:
    """A real picture at the resolution at which the model draws; key and split tie questions and drawings to it.

    `scene` says what is in a picture that was put together by program: its kind, things, relation and named colours.
    """

    key: str
    image: Image.Image = field(repr=False, compare=False)
    name: str = ""
    split: str = TRAIN
    category: str = ""
    subcategory: str = ""
    scene: Mapping[str, Any] | None = field(default=None, hash=False)


@dataclass(frozen=True)
class AnswerRequest:
    """What an TextModel gets: the question's text and its pictures in order, and nothing about the right answer.

    `max_new_tokens` is the length an answer may have; None leaves it to the system.
    """

    id: str
    prompt: str
    pictures: tuple[Image.Image, ...] = field(default=(), repr=False, compare=False)
    max_new_tokens: int | None = None


class HasParts(Protocol):
    """An answer in parts, each with `text` (a string) or with `image` (a PIL picture) and perhaps `progress`.

    It may have `finish`, as a Reply has.
    """

    @property
    def parts(self) -> Sequence[Any]: ...


@dataclass(frozen=True)
class Reply:
    """Anybody's answer in one form: its text, its pictures, and for each picture the pictures after each scale.

    `finish` says why it ended: "stop" by itself, "length" because it was as long as allowed, "" unknown.
    """

    text: str
    pictures: tuple[Image.Image, ...] = ()
    progress: tuple[tuple[Image.Image, ...], ...] = ()
    finish: str = ""

    @property
    def drew(self) -> bool:
        """Whether the answer switched to drawing: it holds a picture, or the token that starts one."""
        return bool(self.pictures) or START_TOKEN in self.text


@runtime_checkable
class TextModel(Protocol):
    """Answers questions about pictures, in batches, in the order asked."""

    def answer(self, requests: Sequence[AnswerRequest]) -> Sequence[str | HasParts | Reply]: ...


@runtime_checkable
class ImageModel(Protocol):
    """Answers requests to draw, in batches; one seed a prompt, so that a drawing does not depend on its neighbours.

    It must not force a picture: whether the answer holds one is measured. A picture part may carry `progress`, the
    pictures after each scale.
    """

    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> Sequence[str | HasParts | Reply]: ...


@runtime_checkable
class EditModel(Protocol):
    """Answers requests to change a picture, in batches; one picture and one seed a prompt. It must not force one."""

    def edit(
        self, prompts: Sequence[str], pictures: Sequence[Image.Image], seeds: Sequence[int]
    ) -> Sequence[str | HasParts | Reply]: ...


@runtime_checkable
class TalkModel(Protocol):
    """Holds conversations: each turn is answered in the light of all before it."""

    def talk(self, talks: Sequence[Talk]) -> Sequence[Sequence[str | HasParts | Reply]]: ...


class UnfinishedError(UserError):
    """A system gave up in the middle of a batch; `replies` holds what was finished, by request id.

    Whoever asked keeps these before the error goes on: the next attempt need not ask them again.
    """

    def __init__(self, message: str, replies: Mapping[str, Reply]) -> None:
        super().__init__(message)
        self.replies = dict(replies)


class RefusedError(UserError):
    """Questions of a batch that a system cannot be asked; `reasons` says why, by request id. None was answered.

    Whoever asked may leave these out, count them, and ask the others again.
    """

    def __init__(self, reasons: Mapping[str, str]) -> None:
        first, *others = reasons.values()
        super().__init__(first + (f" (and {len(others)} more questions are refused)" if others else ""))
        self.reasons = dict(reasons)


@runtime_checkable
class HasExpectedIds(Protocol):
    """A system that wants to know beforehand what it will be asked, as one that reads ready answers from a file does.

    Who asks calls `expect` once a benchmark before the first request, with all ids that are asked (of all processes,
    those answered earlier too) and, as `known`, all that the benchmark has, which are more under a limit. `others`
    leads from what other projects call a question to its id.
    """

    def expect(
        self,
        benchmark: str,
        ids: Sequence[str],
        known: Collection[str] = (),
        others: Mapping[str, str] | None = None,
    ) -> None: ...


def as_reply(raw: str | HasParts | Reply) -> Reply:
    """Puts a string or an answer in parts into one form, a Reply as it is; raises TypeError for anything else."""
    if isinstance(raw, Reply):
        return raw if raw.progress else replace(raw, progress=((),) * len(raw.pictures))
    if isinstance(raw, str):
        return Reply(raw.strip())
    if not hasattr(raw, "parts"):
        raise TypeError(f"an answer is a string or has parts; got {type(raw).__name__}")
    texts, pictures, progress = [], [], []
    for part in raw.parts:
        image = getattr(part, "image", None)
        if image is not None:
            pictures.append(image)
            progress.append(tuple(getattr(part, "progress", None) or ()))
        else:
            texts.append(str(part.text))
    text = " ".join(text.strip() for text in texts if text.strip())
    return Reply(text, tuple(pictures), tuple(progress), str(getattr(raw, "finish", "")))


def marked_text(raw: str | HasParts | Reply) -> str:
    """An answer's texts in order with `<image_gen>` where its first picture stands; others are left out."""
    if isinstance(raw, (str, Reply)):
        reply = as_reply(raw)
        return " ".join(filter(None, (reply.text, DRAWN_MARK if reply.pictures else "")))
    said: list[str] = []
    for part in raw.parts:
        is_picture = getattr(part, "image", None) is not None
        if not is_picture or DRAWN_MARK not in said:
            said.append(DRAWN_MARK if is_picture else str(part.text).strip())
    return " ".join(filter(None, said))


# ------------------------------------------------------------------------------------------------- from our own records


def question_from_record(record: Record, split: str) -> Question:
    """The question of a record whose user turn shows a picture and whose `meta` names the kind and the answer."""
    user, meta = _user_text(record), record.meta
    picture = _key(record, SEEN)
    options = tuple(str(option) for option in meta.get("options", ()))
    return Question(record.id, _field(record, "kind"), user, _field(record, "answer"), picture, split, options)


def drawing_from_record(record: Record, split: str, seed: int) -> Drawing:
    """The request of a record whose assistant turn holds the drawn picture."""
    return Drawing(record.id, _user_text(record), seed, _key(record, DRAWN), split)


def talk_from_record(record: Record, seed: int) -> Talk:
    """The user's turns of a record, and which of them are answered with a drawing."""
    pairs = [
        (asked, answered)
        for asked, answered in zip(record.turns, record.turns[1:], strict=False)
        if asked.role == "user" and answered.role == "assistant"
    ]
    draws = tuple(any(isinstance(part, PicturePart) for part in answered.parts) for _, answered in pairs)
    return Talk(record.id, tuple(asked.text for asked, _ in pairs), draws, seed)


def pictures_from_listing(
    listing: Sequence[Mapping[str, Any]], images: Mapping[str, Image.Image], key: str = "sha"
) -> list[RealPicture]:
    """Real pictures from rows of name, category, subcategory and split, with the pictures by key."""
    return [
        RealPicture(row[key], images[row[key]], row["name"], row["split"], row["category"], row["subcategory"])
        for row in listing
        if row[key] in images
    ]


def _user_text(record: Record) -> str:
    return next((turn.text for turn in record.turns if turn.role == "user"), "")


def _field(record: Record, name: str) -> str:
    if name not in record.meta:
        raise UserError(f"record {record.id!r}: meta has no {name!r}; evaluation needs it")
    return str(record.meta[name])


def _key(record: Record, use: str) -> str:
    keys = [part.key for part in record.pictures(use)]
    if len(keys) != 1:
        raise UserError(f"record {record.id!r}: {len(keys)} {use} pictures; evaluation needs one")
    return keys[0]
