"""What all sources share: rows that hold or are refused, pieces of an input, and conversations checked on the way in.

A bad row becomes `Rejected` with the reason and the reading goes on; a bad file (cut off, of another format) raises
`UserError` naming the file and what was expected of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from vargpt_lightning.data.images.picture_files import PictureError, decode_picture
from vargpt_lightning.data.shards.records import DRAWN, PAIR, SEEN, SEEN_MARK, Record, from_llava
from vargpt_lightning.utils.errors import UserError, near_path

ROWS_PER_PART = 2000
_ID_LENGTH = 80  # a tar header holds names of 100 bytes


class RowError(UserError):
    """What is wrong with one row, a picture missing from its archive for example: the row is refused, not the file."""


@dataclass(frozen=True)
class Rejected:
    """A row that was refused, and why."""

    id: str
    source: str
    reason: str


Row = Record | Rejected
Loader = Callable[[str], bytes]


@dataclass(frozen=True)
class Part:
    """A piece of a source's input that is read by itself: `get(part.source).read_part(part)`.

    `start` and `stop` are bytes, row groups or places in a list, as the source has it; `first` is the number of the
    piece's first row within the file. Parts travel between processes and are equal when they name the same rows.
    """

    source: str
    path: Path
    start: int = 0
    stop: int | None = None
    first: int = 0
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def name(self) -> str:
        """The piece in words, for progress and messages."""
        return f"{self.source} {self.path.name} [{self.start}:{'' if self.stop is None else self.stop}]"


@runtime_checkable
class Source(Protocol):
    """A source of records: a module with these names; docs/add-a-source.md shows one."""

    @property
    def __name__(self) -> str:
        """The module's, by which other processes import it."""

    @property
    def NAME(self) -> str:
        """By which it is found, as in `vargpt data pack NAME:PATH`."""

    def parts(self, path: Path, /, *, pictures: Path | None = None) -> Sequence[Part]:
        """Pieces of an input in a fixed order; other keyword arguments are the source's options.

        Raises UserError: it cannot be read.
        """

    def read_part(self, part: Part, /) -> Iterator[Row]:
        """The rows of a piece, in a fixed order."""

    def read(self, path: Path, /, *, pictures: Path | None = None) -> Iterator[Row]:
        """All rows, with the options of `parts`."""


@runtime_checkable
class Chooses(Protocol):
    """A source that uses some of the files it finds; `left_out` counts the others by what they are."""

    def left_out(self, path: Path, parts: list[Part], /) -> dict[str, int]: ...


def count_left_out(source: Source, path: Path, parts: list[Part], options: Mapping[str, Any]) -> dict[str, int] | None:
    """The files of an input that a source does not use, counted by what they are; None where it does not say."""
    if not isinstance(source, Chooses):
        return None
    counted: Callable[..., dict[str, int]] = source.left_out
    return counted(path, parts, **options)


def read_all(parts: Sequence[Part], read_part: Callable[[Part], Iterator[Row]]) -> Iterator[Row]:
    """Read all pieces one after the other."""
    for part in parts:
        yield from read_part(part)


def need(path: Path, expected: str) -> Path:
    """Return the path if there is something; raises UserError saying what was expected there."""
    if not path.exists():
        raise UserError(f"{path}: not found; expected {expected}{near_path(path)}")
    return path


def row_id(name: Any, place: str | int) -> str:
    """Return an id that no other row has: the row's own, which corpora repeat freely, and its place in the input."""
    own = re.sub(r"[^A-Za-z0-9_./-]", "_", "" if name is None else str(name))[-_ID_LENGTH:]
    return f"{own}-{place}" if own else str(place)


def conversation(
    name: str,
    source: str,
    turns: Any,
    pictures: Sequence[str],
    load: Loader,
    *,
    keys: tuple[str, str] = ("from", "value"),
    meta: Mapping[str, Any] | None = None,
    rejected: Mapping[str, str] | None = None,
) -> Row:
    """Return a conversation with placeholders as a record with its pictures, or as refused.

    `turns` is a list of mappings with the assistant and the text under `keys`; `pictures` are the pictures' keys in
    order of their placeholders, and `load` gives the encoded file for one (RowError when it cannot). `rejected` is a
    turn beside the last one, of a pair.
    """
    try:
        said = [{"from": role, "value": text} for role, text in _said(turns, keys)]
        row = {"id": name, "image": list(pictures), "conversations": said, "meta": dict(meta or {})}
        if rejected is not None:
            ((role, text),) = _said([rejected], keys)
            row["rejected"] = {"from": role, "value": text}
        record = from_llava(row, source)
    except UserError as error:
        return Rejected(name, source, _reason(error, name))
    record.meta.setdefault("kind", kind_of(record))
    return with_pictures(record, load)


def with_pictures(record: Record, load: Loader) -> Row:
    """Return the record with its pictures' files loaded and tried, or as refused."""
    try:
        files = [try_picture(load(part.name), part.name) for part in record.pictures()]
        if not any(turn.role == "assistant" for turn in record.turns):
            raise RowError("no turn of the assistant; expected an answer to train on")
        return record.with_pictures(files)
    except RowError as error:
        return Rejected(record.id, record.source, str(error))


@contextmanager
def pictures_through(work: PictureWork) -> Iterator[None]:
    """Inside the block, sources give each picture to `work` in place of merely decoding it, and take what it returns.

    So whoever wants pictures made smaller need not decode them a second time. `work` raises PictureError.
    """
    token = _work.set(work)
    try:
        yield
    finally:
        _work.reset(token)


def try_picture(data: bytes, name: str) -> bytes:
    """Decode a picture, and return its file; raises RowError when it cannot be."""
    try:
        return _work.get()(data, name)
    except PictureError as error:
        raise RowError(str(error)) from error


def _decoded(data: bytes, name: str) -> bytes:
    decode_picture(data, name)
    return data


PictureWork = Callable[[bytes, str], bytes]
_work: ContextVar[PictureWork] = ContextVar("picture work", default=_decoded)


def check_text(text: str, where: str) -> str:
    """Return the text; raises RowError for NUL characters and lone surrogates."""
    if "\0" in text:
        raise RowError(f"{where}: a NUL character in the text")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RowError(f"{where}: text that is not Unicode (lone surrogate at character {error.start})") from error
    return text


def kind_of(record: Record) -> str:
    """What a record teaches: "pair", or by its pictures "text", "understanding", "generation" or "mixed"."""
    if record.rejected:
        return PAIR
    uses = {part.use for part in record.pictures()}
    return {frozenset(): "text", frozenset({SEEN}): "understanding", frozenset({DRAWN}): "generation"}.get(
        frozenset(uses), "mixed"
    )


def put_placeholder(turns: Any, number: int, keys: tuple[str, str] = ("from", "value")) -> Any:
    """Return the turns with `number` placeholders before the user's first text, if there is none anywhere."""
    said = [turn for turn in turns if isinstance(turn, Mapping)] if isinstance(turns, Sequence) else []
    if any(SEEN_MARK in str(turn.get(keys[1])) for turn in said):
        return turns
    for turn in said:
        if turn.get(keys[0]) in ("human", "user"):
            changed = {**turn, keys[1]: f"{SEEN_MARK}\n" * number + str(turn.get(keys[1]))}
            return [changed if other is turn else other for other in turns]
    return turns


def _said(turns: Any, keys: tuple[str, str]) -> Iterator[tuple[str, str]]:
    if isinstance(turns, (str, bytes, Mapping)) or not hasattr(turns, "__len__") or not len(turns):
        raise RowError(f"no turns: {str(turns)[:80]!r}; expected a list of {keys[0]} and {keys[1]}")
    for number, turn in enumerate(turns):
        where = f"turn {number}"
        if not isinstance(turn, Mapping):
            raise RowError(f"{where}: {str(turn)[:80]!r}; expected {keys[0]} and {keys[1]}")
        text = turn.get(keys[1])
        if text is None:
            text = ""  # an empty turn, and refused as one
        if not isinstance(text, str):
            raise RowError(f"{where}: {keys[1]} is {type(text).__name__}; expected text")
        yield str(turn.get(keys[0])), check_text(text, where)


def _reason(error: UserError, name: str) -> str:
    return re.sub(rf"^record {re.escape(repr(name))}[,:] ", "", str(error))
