"""Records as token ids and labels: pieces of them, what becomes of the pieces, and how much of them fits."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from vargpt_lightning.data.shards.records import SEEN, PicturePart

IGNORED = -100
NOT_TRAINED = array("q", [IGNORED])


@dataclass
class Rendered:
    """Token ids with labels (-100: not trained) and the pictures whose places are in them, in order.

    Both are arrays of type "q". `labels[i]` is `ids[i]` where that token is trained: the shift by one is the model's.
    `cut` says that the record did not fit and lost its end.
    """

    ids: array[int] = field(default_factory=lambda: array("q"))
    labels: array[int] = field(default_factory=lambda: array("q"))
    seen: list[PicturePart] = field(default_factory=list)
    drawn: list[PicturePart] = field(default_factory=list)
    cut: bool = False

    @property
    def trained(self) -> int:
        """How many tokens are trained."""
        return len(self.labels) - self.labels.count(IGNORED)

    @property
    def trains(self) -> bool:
        """Whether any token is trained."""
        return self.labels != NOT_TRAINED * len(self.labels)


@dataclass(slots=True)
class Piece:
    """A stretch of tokens that belongs together: some text, or one picture; `ends` says that an answer ends with it."""

    ids: array[int]
    labels: array[int]
    picture: PicturePart | None = None
    ends: bool = False


def joined(groups: Sequence[Sequence[Piece]]) -> Rendered:
    """Return groups of pieces as one."""
    result = Rendered()
    for piece in (piece for group in groups for piece in group):
        result.ids += piece.ids
        result.labels += piece.labels
        if piece.picture is not None:
            (result.seen if piece.picture.use == SEEN else result.drawn).append(piece.picture)
    return result


def cut(groups: Sequence[Sequence[Piece]], context: int) -> Rendered:
    """Return the groups up to the last answer that fits whole.

    Each group goes up to an answer's end. When not even the first fits, the record ends inside a text, never inside a
    picture.
    """
    fits, length = 0, 0
    for number, group in enumerate(groups):
        length += sum(len(piece.ids) for piece in group)
        if length > context:
            break
        if group and group[-1].ends:
            fits = number + 1
    result = joined(groups[:fits] if fits else [_within([piece for group in groups for piece in group], context)])
    result.cut = True
    return result


def _within(pieces: Sequence[Piece], context: int) -> list[Piece]:
    """As much as fits: text may end anywhere, a picture that does not fit whole ends it before."""
    kept, left = [], context
    for piece in pieces:
        if len(piece.ids) > left:
            if piece.picture is None and left > 0:
                kept.append(Piece(piece.ids[:left], piece.labels[:left]))
            break
        kept.append(piece)
        left -= len(piece.ids)
    return kept
