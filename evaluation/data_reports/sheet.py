"""Records as a model will see them: the rendered template token by token, with the pictures at the model's size."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from vargpt_lightning.data.images.pictures import PictureReader
from vargpt_lightning.data.mixing.buckets import size_of
from vargpt_lightning.data.shards.records import SEEN, PicturePart, Record
from vargpt_lightning.data.text.chat import IGNORED, ChatTemplate, Rendered
from vargpt_lightning.data.text.text_tokenizer import TextTokenizer
from vargpt_lightning.inference.assistant import seen_reader
from vargpt_lightning.models.core.config import VARGPTConfig
from vargpt_lightning.utils.errors import UserError

_CONTEXT = 6  # tokens before one that may change how it is written


@dataclass
class Token:
    """A token, or several that make one character, as text with their ids; `special` ones are put in by id."""

    text: str
    trained: bool
    special: bool = False
    picture: dict[str, Any] | None = None
    ids: tuple[int, ...] = ()


@dataclass
class SheetRecord:
    """What the sheet shows of a record."""

    id: str
    source: str
    kind: str
    tokens: list[Token]
    length: int
    whole: int
    trained: int
    cut: bool
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class SheetMaker:
    """Makes records into what the sheet shows; without `seen` the model sees no pictures.

    `drawn` has a reader for each size of pictures that the model draws.
    """

    template: ChatTemplate
    seen: PictureReader | None
    drawn: tuple[PictureReader, ...]
    context: int

    def __call__(self, record: Record) -> SheetRecord:
        """Return a record as it is rendered within the context."""
        if len(self.drawn) > 1:
            record = record.with_size(size_of(record, [reader.shape for reader in self.drawn]))
        try:
            rendered = self.template.render(record, self.context)
        except UserError as error:
            note = f"{error}: training passes it over"
            return SheetRecord(record.id, record.source, str(record.meta.get("kind", "")), [], 0, 0, 0, False, [note])
        whole = self.template.render(record) if rendered.cut else rendered
        notes = []
        lost = len(whole.seen) + len(whole.drawn) - len(rendered.seen) - len(rendered.drawn)
        if rendered.cut:
            notes.append(
                f"cut at the context of {self.context}: {len(rendered.ids)} of {len(whole.ids)} tokens are left"
            )
        if lost:
            notes.append(f"{lost} of its pictures were cut off")
        if not rendered.trained and not rendered.drawn:
            notes.append("nothing of it is trained: training passes it over")
        kind = str(record.meta.get("kind", ""))
        tokens = list(self._tokens(rendered))
        counts = (len(rendered.ids), len(whole.ids), rendered.trained)
        return SheetRecord(record.id, record.source, kind, tokens, *counts, rendered.cut, notes)

    def _tokens(self, rendered: Rendered) -> Iterator[Token]:
        """The tokens in order; the places of a picture are one, with the picture."""
        ids, tokens = rendered.ids, self.template.tokenizer
        seen, drawn = iter(rendered.seen), iter(rendered.drawn)
        pieces = token_texts(ids, tokens)
        special = tokens.special_ids
        at = 0
        while at < len(ids):
            if ids[at] in (tokens.image_id, tokens.image_gen_id):
                part = next(seen if ids[at] == tokens.image_id else drawn)
                count = self.template.seen_tokens if part.use == SEEN else self.template.drawn_length(part.size)
                name = tokens.decode([ids[at]], skip_special=False)
                yield Token(f"{name} × {count}", False, True, self._picture(part), (ids[at],))
                at += count
                continue
            end = at + 1
            while end < len(ids) and pieces[end] is None:
                end += 1
            trained, own = rendered.labels[at] != IGNORED, ids[at] in special
            yield Token(pieces[at] or "", trained, own, ids=tuple(ids[at:end]))
            at = end

    def _picture(self, part: PicturePart) -> dict[str, Any]:
        """The picture as the reader gives it to the model, back from the tensor; or why it cannot be had."""
        reader = self.seen if part.use == SEEN else self.drawn[part.size]
        found: dict[str, Any] = {"use": part.use, "key": part.name, "size": 0, "uri": "", "error": ""}
        if reader is None:
            return found | {"error": "this model sees no pictures"}
        try:
            uri = picture_uri(reader, part)
        except UserError as error:
            return found | {"size": reader.size, "error": str(error)}
        return found | {"size": reader.size, "uri": uri}


def sheet_maker(config: VARGPTConfig, tokenizer: TextTokenizer) -> SheetMaker:
    """Return what shows records for a model of these sizes."""
    places = config.picture_lengths
    train_on = "all" if config.settings.text_loss == "all" else "answer"
    template = ChatTemplate(tokenizer, config.vision.patches, places, train_on)  # type: ignore[arg-type]
    drawn = tuple(PictureReader(shape) for shape in config.tokenizer.picture_shapes)
    seen = None if config.vision.kind == "none" else seen_reader(config.vision)
    return SheetMaker(template, seen, drawn, config.language.max_positions)


def picture_uri(reader: PictureReader, part: PicturePart) -> str:
    """Return a picture's pixels after the reader, as a PNG in a data URI; raises PictureError as the reader does."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(reader.shown(part.data, part.name)).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def token_texts(ids: Sequence[int], tokenizer: TextTokenizer) -> list[str | None]:
    """Return what each token adds to the text; None for one that only completes the character before it."""
    special = tokenizer.special_ids
    texts: list[str | None] = []
    start = 0  # of the stretch that is decoded together: a special token ends one
    shown, pending = "", 0
    for at, index in enumerate(ids):
        if index in special:
            texts.append(tokenizer.decode([index], skip_special=False))
            start, shown, pending = at + 1, "", 0
            continue
        text = tokenizer.decode(ids[start : at + 1])
        if text.endswith("\ufffd") and pending < 4:
            # the first bytes of a character: the token that completes it has no text of its own
            texts.append("" if not pending else None)
            pending += 1
            continue
        new = text[len(shown) :]
        if pending:
            texts[at - pending] = new
            texts.append(None)
        else:
            texts.append(new)
        shown, pending = text, 0
        if at - start >= 64:
            # long texts are decoded in stretches, with a few tokens before each that say how it begins
            start = at - _CONTEXT
            shown = tokenizer.decode(ids[start : at + 1])
    return texts


def token_html(token: Token) -> str:
    """Return a token as HTML; line breaks are shown and kept."""
    text = html.escape(token.text).replace("\n", '<span class="nl">↵</span>\n')
    names = [name for name, on in (("t", token.trained), ("s", token.special)) if on]
    ids = " ".join(map(str, token.ids))
    return f'<span class="{" ".join(["k", *names])}" title="{ids}">{text}</span>'
