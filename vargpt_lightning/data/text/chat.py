"""Records rendered to token ids and labels, by the package's own format or the chat template of a tokenizer."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from vargpt_lightning.data.shards.records import SEEN, PicturePart, Record, Turn
from vargpt_lightning.data.text.built_in import built_in_groups, spoken_texts
from vargpt_lightning.data.text.own_format import own_groups
from vargpt_lightning.data.text.rendering import IGNORED, NOT_TRAINED, Piece, Rendered, cut, joined
from vargpt_lightning.data.text.text_tokenizer import TextTokenizer
from vargpt_lightning.utils.errors import UserError

__all__ = ["IGNORED", "ChatTemplate", "Rendered", "TrainOn", "spoken_texts"]

TrainOn = Literal["answer", "all"]
Places = tuple["array[int]", "array[int]"]
"""Ids and labels of a picture."""


@dataclass(frozen=True)
class ChatTemplate:
    """Renders conversations for a text tokenizer, `seen_tokens` (N) to a seen picture, `drawn_tokens` (L) to a drawn.

    They are written as the tokenizer's chat template has it where it was loaded with that, else in the package's own
    format. A seen picture is N `<image>` ids; a drawn one is `<image_gen_start>`, L `<image_gen>`, `<image_gen_end>`.
    With `train_on="answer"` the assistant's text, `<image_gen_start>` and the token that ends an answer are trained,
    with "all" every text token; never the places of pictures, nor `<image_gen_end>`, which the generation loop puts in
    itself. Where a model draws several sizes, `drawn_tokens` has L of each, and a picture says which one it is of.
    """

    tokenizer: TextTokenizer
    seen_tokens: int
    drawn_tokens: int | tuple[int, ...]
    train_on: TrainOn = "answer"

    def __post_init__(self) -> None:
        if self.train_on not in ("answer", "all"):
            raise UserError(f"chat template train_on: {self.train_on!r}; expected 'answer' or 'all'")

    def drawn_length(self, size: int = 0) -> int:
        """Return L, the visual tokens of a drawn picture of a size."""
        return self.drawn_tokens if isinstance(self.drawn_tokens, int) else self.drawn_tokens[size]

    def render(self, record: Record, context: int | None = None) -> Rendered:
        """Return the whole record as ids and labels.

        A record longer than `context` tokens is cut after the last answer that fits whole; when not even the first
        does, inside a text, never inside a picture. Raises UserError when the tokenizer's template cannot write it.
        """
        groups = self._groups(record.turns)
        length = sum(len(piece.ids) for group in groups for piece in group)
        return joined(groups) if context is None or length <= context else cut(groups, context)

    def prompt(self, turns: Sequence[Turn], context: int | None = None, reserve: int = 0) -> Rendered:
        """Return the turns and the opening of the assistant's answer, as the model is asked to go on from.

        Earlier turns of the assistant, with what it drew, are kept. Raises UserError when prompt and `reserve` (the
        tokens the answer may take) are longer than `context`, when the last turn is not the user's, and when the
        tokenizer's template cannot write them.
        """
        if not turns or turns[-1].role != "user":
            raise UserError("prompt: the last turn is not the user's; expected a question or a request")
        rendered = joined(self._groups(turns, open_answer=True))
        rendered.labels = NOT_TRAINED * len(rendered.ids)
        if context is not None and len(rendered.ids) + reserve > context:
            more = f" and {reserve} for the answer" if reserve else ""
            raise UserError(f"prompt: {len(rendered.ids)} tokens{more}; the model's context holds {context}")
        return rendered

    def _groups(self, turns: Sequence[Turn], open_answer: bool = False) -> list[list[Piece]]:
        """The turns as pieces, up to each answer's end together; with `open_answer` an answer begins behind them."""
        make = built_in_groups if self.tokenizer.own_chat is None else own_groups
        found = make(turns, self.tokenizer, self.train_on == "all", open_answer)
        return [[self._picture(part) if isinstance(part, PicturePart) else part for part in group] for group in found]

    def _picture(self, part: PicturePart) -> Piece:
        return Piece(*(self._seen if part.use == SEEN else self._drawn(part.size)), part)

    @cached_property
    def _seen(self) -> Places:
        return array("q", [self.tokenizer.image_id]) * self.seen_tokens, NOT_TRAINED * self.seen_tokens

    def _drawn(self, size: int) -> Places:
        if size not in self._sizes:
            tokens, drawn = self.tokenizer, self.drawn_length(size)
            start = array("q", [tokens.image_gen_start_id])
            places = start + array("q", [tokens.image_gen_id]) * drawn + array("q", [tokens.image_gen_end_id])
            self._sizes[size] = places, start + NOT_TRAINED * (drawn + 1)
        return self._sizes[size]

    @cached_property
    def _sizes(self) -> dict[int, Places]:
        """Ids and labels of a drawn picture of each size."""
        return {}
