"""The package's own format of conversations, LLaVA-1.5's: `USER: <image>\\n... ASSISTANT: ...</s>`."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence

from vargpt_lightning.data.shards.records import PicturePart, Record, TextPart, Turn
from vargpt_lightning.data.text.layout import parts_with_gaps
from vargpt_lightning.data.text.rendering import NOT_TRAINED, Piece
from vargpt_lightning.data.text.text_tokenizer import TextTokenizer

_OPENINGS = {"system": "", "user": "USER: ", "assistant": "ASSISTANT:"}
Span = tuple[str, bool]


def built_in_groups(
    turns: Sequence[Turn], tokenizer: TextTokenizer, train_all: bool, open_answer: bool
) -> list[list[Piece | PicturePart]]:
    """Return the turns as texts and pictures, up to each answer's end together.

    What stands between pictures and ends is encoded as one (see `stretches`). With `open_answer` an answer begins
    behind them.
    """
    end = Piece(array("q", [tokenizer.eos_id]), array("q", [tokenizer.eos_id]), ends=True)
    groups: list[list[Piece | PicturePart]] = [[Piece(array("q", [tokenizer.bos_id]), NOT_TRAINED)], []]
    for part in stretches(turns, tokenizer.joins_turns, open_answer):
        if part is None:
            groups[-1].append(end)
            groups.append([])
        else:
            groups[-1].append(part if isinstance(part, PicturePart) else _text(part, tokenizer, train_all))
    return groups


def _text(spans: Sequence[Span], tokenizer: TextTokenizer, train_all: bool) -> Piece:
    """Encode a text made of spans, each trained or not, as one; a token is trained if its end is."""
    texts: list[str] = []
    flags: list[bool] = []
    for text, trained in spans:
        trained = trained or train_all
        if flags and flags[-1] == trained:
            texts[-1] += text
        else:
            texts.append(text)
            flags.append(trained)
    piece = Piece(array("q"), array("q"))
    for trained, ids in zip(flags, tokenizer.encode_spans(texts) if texts else (), strict=True):
        piece.ids += ids
        piece.labels += ids if trained else NOT_TRAINED * len(ids)
    return piece


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
    """A turn's pictures and the texts about them as the format writes them, each with whether it is answered."""
    answer = turn.role == "assistant"
    yield _OPENINGS[turn.role], False
    for number, (gap, part) in enumerate(parts_with_gaps(turn)):
        if isinstance(part, TextPart):
            if answer and number == 0:
                gap = " "
            if answer and joined and not part.text:
                gap = ""  # a space would be a token by itself, that nothing follows
            yield gap + part.text, answer
        else:
            if gap:
                yield gap, False
            yield part
    if not answer:
        yield "\n " if isinstance(turn.parts[-1], PicturePart) else " ", False


def spoken_texts(record: Record, joined: bool = False) -> Iterator[str]:
    """Yield the record's texts as the format writes them, turn by turn: what a text tokenizer is best trained on.

    `joined` as `stretches` has it.
    """
    for part in stretches(record.turns, joined):
        if isinstance(part, list) and (text := "".join(span for span, _ in part)):
            yield text
