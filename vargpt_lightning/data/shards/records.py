"""The one record of all data: a conversation of texts and pictures, seen or drawn, as stored and as received."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from vargpt_lightning.utils.counted import counted
from vargpt_lightning.utils.errors import UserError

ROLES = ("system", "user", "assistant")
SEEN, DRAWN = "seen", "drawn"
PAIR = "pair"
SEEN_MARK, DRAWN_MARK = "<image>", "<image_gen>"
LLAVA_ROLES = {"system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}


@dataclass(frozen=True)
class TextPart:
    """A stretch of text inside a turn."""

    text: str


@dataclass(frozen=True)
class PicturePart:
    """A picture inside a turn: `use` is "seen" (given to the model) or "drawn" (the model's own).

    `name` is what its corpus calls it (a path, a hash of its pixels); other corpora, and the same one packed anew, may
    have another picture of that name. `data` holds the encoded file (PNG, JPEG, WebP), or None when it is loaded
    elsewhere. `codes` holds a drawn picture's visual tokens, (variants, L), where these were computed before. `packed`
    says that it was read from shards. `size` says which of a model's sizes a drawn picture is to have.
    """

    use: str
    name: str
    data: bytes | None = field(default=None, repr=False, compare=False)
    codes: Any = field(default=None, repr=False, compare=False)
    packed: bool = field(default=False, repr=False, compare=False)
    size: int = field(default=0, repr=False, compare=False)

    @cached_property
    def key(self) -> str:
        """What a packed picture is known by wherever it is kept, counted or shown: the hash of its file.

        It is the name where the picture is not packed yet, or its file was not read.
        """
        return content_key(self.data) if self.packed and self.data is not None else self.name


Part = TextPart | PicturePart


def content_key(data: bytes) -> str:
    """Return a picture file's key: 128 bits of its SHA-256."""
    return hashlib.sha256(data).hexdigest()[:32]


@dataclass(frozen=True)
class Turn:
    """What one role says: texts and pictures in order."""

    role: str
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """The turn's texts, joined; pictures left out."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))


@dataclass(frozen=True)
class Record:
    """A conversation: an optional system turn, then user and assistant turns; `meta` is free JSON about it.

    A pair has a second answer in place of its last turn, `rejected`; the last turn is then the chosen one.

    Raises UserError for an unknown role, an empty turn, a picture of unknown use or in the wrong role's turn
    (seen pictures belong to the user, drawn ones to the assistant), and for a rejected turn beside no answer.
    """

    id: str
    source: str
    turns: tuple[Turn, ...]
    meta: dict[str, Any] = field(default_factory=dict)
    rejected: Turn | None = None

    def __post_init__(self) -> None:
        if not self.turns:
            raise UserError(f"record {self.id!r}: no turns; expected at least one")
        for number, turn in enumerate(self.every_turn):
            _check_turn(self.id, number, turn)
        if self.rejected and (self.rejected.role != "assistant" or self.turns[-1].role != "assistant"):
            raise UserError(f"record {self.id!r}: a rejected turn beside no answer; expected two of the assistant")

    @property
    def every_turn(self) -> tuple[Turn, ...]:
        """All turns, a rejected one last."""
        return (*self.turns, self.rejected) if self.rejected else self.turns

    @property
    def kind(self) -> str:
        """What it is counted as: "pair", or what its `meta` says."""
        return PAIR if self.rejected else str(self.meta.get("kind", "conversation"))

    @property
    def chosen(self) -> Record:
        """The conversation with the chosen answer alone."""
        return replace(self, rejected=None) if self.rejected else self

    @property
    def other(self) -> Record | None:
        """The conversation with the rejected answer alone; None where there is none."""
        return replace(self, turns=(*self.turns[:-1], self.rejected), rejected=None) if self.rejected else None

    def pictures(self, use: str | None = None) -> list[PicturePart]:
        """All pictures in order of appearance, or those of one use ("seen" or "drawn")."""
        parts = (part for turn in self.every_turn for part in turn.parts)
        return [part for part in parts if isinstance(part, PicturePart) and use in (None, part.use)]

    def texts(self) -> Iterator[str]:
        """Every text of every turn, in order."""
        return (part.text for turn in self.every_turn for part in turn.parts if isinstance(part, TextPart))

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain JSON values; the pictures' bytes are left out, their keys stay."""
        turns = [_turn_to_json(turn) for turn in self.turns]
        rejected = {"rejected": _turn_to_json(self.rejected)} if self.rejected else {}
        return {"id": self.id, "source": self.source, "turns": turns, **rejected, "meta": self.meta}

    @classmethod
    def from_json(
        cls, value: Mapping[str, Any], pictures: Sequence[bytes | None] | None = None, packed: bool = False
    ) -> Record:
        """Build a record from `to_json`'s value; `pictures` are the encoded files in order of appearance.

        `packed` says that it comes from shards, whose pictures are known by their content.
        Raises UserError when a key is missing or the number of pictures differs from the parts that ask for one.
        """
        name = value.get("id", "?")
        # given as many as there are, they are put in at once; otherwise `with_pictures` says what is wrong
        fits = pictures is not None and len(pictures) == _pictures_in(value)
        files = iter(pictures if fits and pictures is not None else ())
        try:
            turns = tuple(_turn_from_json(turn, files, packed) for turn in value["turns"])
            rejected = _turn_from_json(value["rejected"], files, packed) if value.get("rejected") else None
            record = cls(str(value["id"]), str(value["source"]), turns, dict(value.get("meta", {})), rejected)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"record {name!r}: {error!r}; expected id, source, turns of role and parts") from error
        return record if pictures is None or fits else record.with_pictures(pictures)

    def with_pictures(self, pictures: Sequence[bytes | None], codes: Sequence[Any] | None = None) -> Record:
        """Return the record with the encoded files put into its picture parts, in order of appearance.

        `codes` are the visual tokens of the same pictures, None for those that have none.
        """
        wanted = len(self.pictures())
        if wanted != len(pictures):
            raise UserError(f"record {self.id!r}: {len(pictures)} pictures given, its turns ask for {wanted}")
        left = zip(pictures, codes or [None] * wanted, strict=True)

        def fill(part: Part) -> Part:
            return PicturePart(part.use, part.name, *next(left), part.packed) if isinstance(part, PicturePart) else part

        turns = tuple(Turn(turn.role, tuple(fill(part) for part in turn.parts)) for turn in self.every_turn)
        if self.rejected:
            return replace(self, turns=turns[:-1], rejected=turns[-1])
        return replace(self, turns=turns)

    def with_size(self, size: int) -> Record:
        """Return the record with all its drawn pictures at one of a model's sizes."""

        def sized(part: Part) -> Part:
            return replace(part, size=size) if isinstance(part, PicturePart) and part.use == DRAWN else part

        turns = tuple(Turn(turn.role, tuple(sized(part) for part in turn.parts)) for turn in self.turns)
        return Record(self.id, self.source, turns, self.meta)


def _check_turn(name: str, number: int, turn: Turn) -> None:
    pictures = [part for part in turn.parts if isinstance(part, PicturePart)]
    wrong = ""
    if turn.role not in ROLES:
        wrong = f"unknown role {turn.role!r}; expected one of {', '.join(ROLES)}"
    elif not pictures and not turn.text.strip():
        wrong = f"the {turn.role}'s turn is empty; expected text or a picture"
    for part in pictures:
        if wrong:
            break
        if part.use not in (SEEN, DRAWN):
            wrong = f"picture use {part.use!r}; expected 'seen' or 'drawn'"
        elif turn.role != {SEEN: "user", DRAWN: "assistant"}[part.use]:
            wrong = f"a {part.use} picture in the {turn.role}'s turn"
    if wrong:
        raise UserError(f"record {name!r}, turn {number}: {wrong}")


def _turn_to_json(turn: Turn) -> dict[str, Any]:
    return {"role": turn.role, "parts": [_part_to_json(part) for part in turn.parts]}


def _turn_from_json(value: Mapping[str, Any], files: Iterator[bytes | None], packed: bool) -> Turn:
    return Turn(value["role"], tuple([_part_from_json(part, files, packed) for part in value["parts"]]))


def _part_to_json(part: Part) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"text": part.text}
    return {"picture": part.name, "use": part.use}


def _part_from_json(value: Mapping[str, Any], files: Iterator[bytes | None], packed: bool) -> Part:
    if "text" in value:
        return TextPart(value["text"])
    return PicturePart(value["use"], value["picture"], next(files, None), packed=packed)


def _pictures_in(value: Mapping[str, Any]) -> int:
    """How many pictures a record's value asks for; none where it is no record's."""
    try:
        turns = [*value["turns"], *([value["rejected"]] if value.get("rejected") else [])]
        return sum("text" not in part for turn in turns for part in turn["parts"])
    except (KeyError, TypeError):
        return 0


def from_llava(row: Mapping[str, Any], source: str = "llava") -> Record:
    """Read a row of LLaVA-1.5's instruction files: `id`, optional `image`, `conversations` of `from` and `value`.

    `<image>` in the user's turn takes the next picture as seen, `<image_gen>` in the assistant's as drawn; the pictures
    hold their paths alone. With `rejected`, one more turn, the row is a pair. Raises UserError for an unknown role, an
    empty turn, or placeholders that do not match the pictures.
    """
    name, images = str(row.get("id", "?")), row.get("image", [])
    images = [images] if isinstance(images, str) else list(images or [])
    spoken = [*row.get("conversations", []), *([row["rejected"]] if row.get("rejected") else [])]
    said = [(str(turn.get("from")), str(turn.get("value", ""))) for turn in spoken]
    for number, (role, _) in enumerate(said):
        if role not in LLAVA_ROLES:
            raise UserError(f"record {name!r}, turn {number}: unknown role {role!r}; expected {sorted(LLAVA_ROLES)}")
    roles = [LLAVA_ROLES[role] for role, _ in said]
    marks = {"user": SEEN_MARK, "assistant": DRAWN_MARK}
    wanted = sum(text.count(marks[role]) for role, (_, text) in zip(roles, said, strict=True) if role in marks)
    if wanted != len(images):
        raise UserError(
            f"record {name!r}: {counted(wanted, 'placeholder')} ({SEEN_MARK} of the user, {DRAWN_MARK} of the "
            f"assistant) for {counted(len(images), 'picture')}; expected as many of one as of the other"
        )
    left = iter(images)
    turns = tuple(
        Turn(role, _split_at_mark(text, role, marks.get(role), left))
        for role, (_, text) in zip(roles, said, strict=True)
    )
    meta = dict(row.get("meta", {}))
    if row.get("rejected"):
        return Record(name, source, turns[:-1], meta, turns[-1])
    return Record(name, source, turns, meta)


def _split_at_mark(text: str, role: str, mark: str | None, images: Iterator[str]) -> tuple[Part, ...]:
    parts: list[Part] = []
    pieces = re.split(f"({re.escape(mark)})", text) if mark else [text]
    for piece in pieces:
        if piece == mark:
            parts.append(PicturePart(SEEN if role == "user" else DRAWN, next(images)))
        elif piece.strip():
            # the white space that the files put beside a placeholder belongs to the template, not to the text
            parts.append(TextPart(piece.strip() if len(pieces) > 1 else piece))
    return tuple(parts)
