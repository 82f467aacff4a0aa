"""Records rendered to token ids and labels, as LLaVA-1.5 does: `USER: <image>\\n... ASSISTANT: ...</s>`."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from vargpt_lightning.data.shards.records import DRAWN, SEEN, PicturePart, Record, TextPart, Turn
from vargpt_lightning.data.text.text_tokenizer import TextTokenizer
from vargpt_lightning.utils.errors import UserError

IGNORED = -100
TrainOn = Literal["answer", "all"]
_NOT_TRAINED = array("q", [IGNORED])
_OPENINGS = {"system": "", "user": "USER: ", "assistant": "ASSISTANT:"}


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
        return self.labels != _NOT_TRAINED * len(self.labels)


@dataclass(slots=True)
class _Piece:
    """A stretch of tokens that belongs together: some text, or one picture."""

    ids: array[int]
    labels: array[int]
    picture: PicturePart | None = None


@dataclass(frozen=True)
class ChatTemplate:
    """Renders conversations for a text tokenizer, `seen_tokens` (N) to a seen picture, `drawn_tokens` (L) to a drawn.

    A seen picture is N `<image>` ids; a drawn one is `<image_gen_start>`, L `<image_gen>`, `<image_gen_end>`. With
    `train_on="answer"` the assistant's text, `<image_gen_start>` and `</s>` are trained, with "all" every text token;
    never the places of pictures, nor `<image_gen_end>`, which the generation loop puts in itself.
    """

    tokenizer: TextTokenizer
    seen_tokens: int
    drawn_tokens: int
    train_on: TrainOn = "answer"

    def __post_init__(self) -> None:
        if self.train_on not in ("answer", "all"):
            raise UserError(f"chat template train_on: {self.train_on!r}; expected 'answer' or 'all'")

    def render(self, record: Record, context: int | None = None) -> Rendered:
        """Return the whole record as ids and labels.

        A record longer than `context` tokens is cut after the last answer that fits whole; when not even the first
        does, inside a text, never inside a picture.
        """
        pieces = [[self._opening], *self._groups(record.turns)]
        length = sum(len(piece.ids) for group in pieces for piece in group)
        if context is None or length <= context:
            return _join([piece for group in pieces for piece in group])
        return self._cut(pieces, context)

    def prompt(self, turns: Sequence[Turn], context: int | None = None, reserve: int = 0) -> Rendered:
        """Return the turns and the opening of the assistant's answer, as the model is asked to go on from.

        Earlier turns of the assistant, with what it drew, are kept. Raises UserError when prompt and `reserve` (the
        tokens the answer may take) are longer than `context`, and when the last turn is not the user's.
        """
        if not turns or turns[-1].role != "user":
            raise UserError("prompt: the last turn is not the user's; expected a question or a request")
        groups = self._groups(turns, open_answer=True)
        rendered = _join([self._opening, *(piece for group in groups for piece in group)])
        rendered.labels = _NOT_TRAINED * len(rendered.ids)
        if context is not None and len(rendered.ids) + reserve > context:
            more = f" and {reserve} for the answer" if reserve else ""
            raise UserError(f"prompt: {len(rendered.ids)} tokens{more}; the model's context holds {context}")
        return rendered

    def _groups(self, turns: Sequence[Turn], open_answer: bool = False) -> list[list[_Piece]]:
        """The turns as pieces, up to each answer's end together: what stands between pictures and ends is encoded as
        one (see `stretches`). With `open_answer` an answer begins behind them.
        """
        groups: list[list[_Piece]] = [[]]
        for part in stretches(turns, self.tokenizer.joins_turns, open_answer):
            if part is None:
                groups[-1].append(self._end)
                groups.append([])
            else:
                groups[-1].append(self._picture(part) if isinstance(part, PicturePart) else self._text(part))
        return groups

    def _text(self, spans: Sequence[tuple[str, bool]]) -> _Piece:
        """Encode a text made of spans, each trained or not, as one; a token is trained if its end is."""
        texts: list[str] = []
        flags: list[bool] = []
        for text, trained in spans:
            trained = trained or self.train_on == "all"
            if flags and flags[-1] == trained:
                texts[-1] += text
            else:
                texts.append(text)
                flags.append(trained)
        piece = _Piece(array("q"), array("q"))
        for trained, ids in zip(flags, self.tokenizer.encode_spans(texts) if texts else (), strict=True):
            piece.ids += ids
            piece.labels += ids if trained else _NOT_TRAINED * len(ids)
        return piece

    def _picture(self, part: PicturePart) -> _Piece:
        return _Piece(*self._places[part.use], part)

    @cached_property
    def _places(self) -> dict[str, tuple[array[int], array[int]]]:
        """Ids and labels of a picture of each use."""
        tokens, seen, drawn = self.tokenizer, self.seen_tokens, self.drawn_tokens
        start = array("q", [tokens.image_gen_start_id])
        places = start + array("q", [tokens.image_gen_id]) * drawn + array("q", [tokens.image_gen_end_id])
        return {
            SEEN: (array("q", [tokens.image_id]) * seen, _NOT_TRAINED * seen),
            DRAWN: (places, start + _NOT_TRAINED * (drawn + 1)),
        }

    @cached_property
    def _opening(self) -> _Piece:
        return _Piece(array("q", [self.tokenizer.bos_id]), _NOT_TRAINED)

    @cached_property
    def _end(self) -> _Piece:
        return _Piece(array("q", [self.tokenizer.eos_id]), array("q", [self.tokenizer.eos_id]))

    def _cut(self, groups: list[list[_Piece]], context: int) -> Rendered:
        kept: list[_Piece] = []
        fits, length = 0, 0
        for number, group in enumerate(groups):
            length += sum(len(piece.ids) for piece in group)
            if length > context:
                break
            if group and group[-1] is self._end:
                fits = number + 1
        if fits:
            kept = [piece for group in groups[:fits] for piece in group]
        else:
            kept = _within([piece for group in groups for piece in group], context)
        result = _join(kept)
        result.cut = True
        return result


Span = tuple[str, bool]


def stretches(
    turns: Sequence[Turn], joined: bool, open_answer: bool = False
) -> Iterator[list[Span] | PicturePart | None]:
    """Yield the turns as stretches of text, each of spans that say whether they are answered, pictures, and None at an
    answer's end.

    LLaVA-1.5 encodes what stands between pictures and ends as one string, across turns: `joined`. The tokenizers that
    this package trains have learned each turn by itself, with the models that were trained with them.
    """
    spans: list[Span] = []
    for turn in turns:
        for part in _lay_out(turn, joined):
            if isinstance(part, PicturePart):
                yield spans
                spans = []
                yield part
            else:
                spans.append(part)
        answer = turn.role == "assistant"
        if answer or not joined:
            yield spans
            spans = []
        if answer:
            yield None
    if open_answer:
        spans.append((_OPENINGS["assistant"], False))
    if spans:
        yield spans


def _lay_out(turn: Turn, joined: bool) -> Iterator[Span | PicturePart]:
    """A turn's pictures and the texts about them as the template writes them, each with whether it is answered."""
    answer = turn.role == "assistant"
    yield _OPENINGS[turn.role], False
    for number, part in enumerate(turn.parts):
        after_picture = number > 0 and isinstance(turn.parts[number - 1], PicturePart)
        if isinstance(part, TextPart):
            gap = (" " if answer else "\n") if after_picture else " " if answer and number == 0 else ""
            if answer and joined and not part.text:
                gap = ""  # a space would be a token by itself, that nothing follows
            yield gap + part.text, answer
        else:
            if number > 0 and not answer:
                yield "\n", False
            yield part
    if not answer:
        yield "\n " if isinstance(turn.parts[-1], PicturePart) else " ", False


def spoken_texts(record: Record, joined: bool = False) -> Iterator[str]:
    """Yield the record's texts as the template writes them, turn by turn: what a text tokenizer is best trained on.

    `joined` as `stretches` has it.
    """
    for part in stretches(record.turns, joined):
        if isinstance(part, list) and (text := "".join(span for span, _ in part)):
            yield text


def _within(pieces: Sequence[_Piece], context: int) -> list[_Piece]:
    """As much as fits: text may end anywhere, a picture that does not fit whole ends it before."""
    kept, left = [], context
    for piece in pieces:
        if len(piece.ids) > left:
            if piece.picture is None and left > 0:
                kept.append(_Piece(piece.ids[:left], piece.labels[:left]))
            break
        kept.append(piece)
        left -= len(piece.ids)
    return kept


def _join(pieces: Sequence[_Piece]) -> Rendered:
    result = Rendered()
    for piece in pieces:
        result.ids += piece.ids
        result.labels += piece.labels
        if piece.picture is not None:
            (result.seen if piece.picture.use == SEEN else result.drawn).append(piece.picture)
    return result
