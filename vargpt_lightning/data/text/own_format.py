"""Conversations of a tokenizer's own chat template as pieces of token ids."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from vargpt_lightning.data.shards.records import SEEN, PicturePart, Turn
from vargpt_lightning.data.text.rendering import NOT_TRAINED, Piece
from vargpt_lightning.data.text.text_tokenizer import TextTokenizer
from vargpt_lightning.utils.errors import UserError


def own_groups(
    turns: Sequence[Turn], tokenizer: TextTokenizer, train_all: bool, open_answer: bool
) -> list[list[Piece | PicturePart]]:
    """Return the turns as texts and pictures, up to each answer's end together.

    The ids are those of transformers' `apply_chat_template`; a token is trained if the last character that it stands
    for is the assistant's.

    Raises:
        UserError: the template cannot write these turns.
    """
    assert tokenizer.own_chat is not None
    written = tokenizer.own_chat.write(turns, open_answer)
    ids, offsets = tokenizer.encode_written(written)
    pictures = iter(written.pictures)
    places = {tokenizer.image_id: True, tokenizer.image_gen_id: False}
    groups: list[list[Piece | PicturePart]] = [[]]
    piece = Piece(array("q"), array("q"))
    for index, (start, end) in zip(ids, offsets, strict=True):
        if index in places:
            part = next(pictures, None)
            if part is None or (part.use == SEEN) != places[index]:
                raise UserError("chat template: it changes the order of pictures; expected them as they came")
            groups[-1] += [piece, part]
            piece = Piece(array("q"), array("q"))
            continue
        if index in tokenizer.special_ids:  # some take the white space beside them, which is not theirs
            token = written.text[start:end]
            start, end = start + len(token) - len(token.lstrip()), end - len(token) + len(token.rstrip())
        piece.ids.append(index)
        trained = train_all or max(end - 1, 0) in written.answers
        piece.labels.append(index if trained else NOT_TRAINED[0])
        if index == tokenizer.eos_id and start in written.ends:
            piece.ends = True
            groups[-1].append(piece)
            groups.append([])
            piece = Piece(array("q"), array("q"))
    groups[-1].append(piece)
    if train_all and isinstance(first := groups[0][0], Piece) and first.labels:
        first.labels[0] = NOT_TRAINED[0]  # nothing comes before it
    return groups
