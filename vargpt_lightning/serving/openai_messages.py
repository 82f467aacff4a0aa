"""The messages of a chat request, turned into a conversation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from vargpt_lightning.data.images.pictures import PictureReader
from vargpt_lightning.data.shards.records import DRAWN, SEEN, Part, PicturePart, TextPart, Turn
from vargpt_lightning.inference.assistant import Assistant, Conversation
from vargpt_lightning.inference.sizes import size_like
from vargpt_lightning.serving.incoming_pictures import picture_from_url
from vargpt_lightning.serving.limits import Limits, RefusedRequestError
from vargpt_lightning.serving.openai_parameters import check_extra
from vargpt_lightning.utils.http.json_values import Whole

if TYPE_CHECKING:
    from PIL import Image

Role = Literal["system", "developer", "user", "assistant"]


class ImageUrl(BaseModel):
    """Where a picture is; `detail` changes nothing here."""

    url: str
    detail: str | None = None


class ContentPart(BaseModel):
    """A piece of a message: its text or its picture."""

    model_config = ConfigDict(extra="allow")
    type: Literal["text", "image_url"]
    text: str | None = None
    image_url: ImageUrl | str | None = None

    @property
    def url(self) -> str:
        """The picture's URL."""
        return (self.image_url.url if isinstance(self.image_url, ImageUrl) else self.image_url) or ""


class AnswerPart(BaseModel):
    """A piece of an answer of this server: a text, or the place of a picture in `images`."""

    type: Literal["text", "image"]
    text: str | None = None
    image: Whole | None = None


class Message(BaseModel):
    """A turn; an answer of this server can be sent back as it came, with its `images` and their order in `parts`."""

    model_config = ConfigDict(extra="allow")
    role: Role
    content: str | list[ContentPart] | None = None
    images: list[ContentPart] | None = Field(default=None)
    parts: list[AnswerPart] | None = Field(default=None)
    name: str | None = None


Piece = str | ContentPart
"""A text, or a part with the URL of a picture."""


def conversation(
    assistant: Assistant, messages: Sequence[Message], limits: Limits, remote: bool = False
) -> Conversation:
    """Return messages as the model takes them; pictures of the assistant are encoded to codes again.

    Raises:
        RefusedRequestError: a message asks for what there is not, is empty or not the user's where it is the last;
            there is too much text or too many pictures, or one of them cannot be read.
    """
    pieces = [_pieces(message, number) for number, message in enumerate(messages)]
    _check_size(pieces, limits)
    if messages[-1].role != "user":
        raise RefusedRequestError(
            "the last message is not the user's; expected a question or a request", param="messages"
        )
    result = Conversation()
    for number, (message, said) in enumerate(zip(messages, pieces, strict=True)):
        parts: list[Part] = []
        for piece in said:
            if isinstance(piece, str):
                parts.append(TextPart(piece))
                continue
            image = picture_from_url(piece.url, limits, remote, f"messages.{number}.content")
            key = f"picture-{len(result.pictures)}"
            drawn = message.role == "assistant"
            size = size_like(image, assistant.model.config.tokenizer)
            result.pictures[key] = _codes(assistant, image, size) if drawn else assistant.see(image)
            parts.append(PicturePart(DRAWN, key, size=size) if drawn else PicturePart(SEEN, key))
        role = message.role if message.role in ("user", "assistant") else "system"
        result.turns.append(Turn(role, tuple(parts)))
    return result


def _pieces(message: Message, number: int) -> list[Piece]:
    """What a message says, in its order: texts that follow each other are one, with a line break between them."""
    where = f"messages.{number}"
    check_extra(message.model_extra, f"{where}.")
    if isinstance(message.content, list):
        found = [_checked(part, f"{where}.content.{place}") for place, part in enumerate(message.content)]
    else:
        found = [message.content] if message.content else []
    images = [_checked(part, f"{where}.images.{place}") for place, part in enumerate(message.images or ())]
    found = _in_order(message, images, where) if message.parts else [*found, *images]
    pictures = any(not isinstance(piece, str) for piece in found)
    if pictures and message.role not in ("user", "assistant"):
        raise RefusedRequestError(f"{where}: a picture in a message of {message.role}; expected text", param=where)
    joined = list(_joined(found))
    if pictures or message.role == "assistant":
        # White space beside a picture, and around an answer, is the chat template's, as in training.
        joined = [piece.strip() if isinstance(piece, str) else piece for piece in joined]
    joined = [piece for piece in joined if not isinstance(piece, str) or piece.strip()]
    if not joined and (message.role != "assistant" or message.content is None):
        raise RefusedRequestError(f"{where} is empty; expected text or a picture", param=where)
    return joined


def _checked(part: ContentPart, where: str) -> Piece:
    """A part that is what its type says and nothing else."""
    check_extra(part.model_extra, f"{where}.")
    text, said = part.type == "text", part.text or ""
    if (part.url if text else said) or not (said if text else part.url).strip():
        expected = 'a text that is not empty, in "text"' if text else 'a picture, in "image_url"'
        raise RefusedRequestError(f"{where}: of type {part.type}; expected {expected}, and nothing else", param=where)
    return said if text else part


def _in_order(message: Message, images: Sequence[Piece], where: str) -> list[Piece]:
    """The texts and pictures of an answer as its `parts` order them."""
    parts = message.parts or []
    places = [-1 if part.image is None else part.image for part in parts if part.type == "image"]
    texts = [part.text or "" for part in parts if part.type == "text"]
    whole = sorted(places) == list(range(len(images))) and "\n".join(texts) == (message.content or "")
    if message.role != "assistant" or not whole:
        expected = "the parts of an answer as it came: each of `images` once, and the text of `content`"
        raise RefusedRequestError(f"{where}.parts: expected {expected}", param=f"{where}.parts")
    return [images[part.image or 0] if part.type == "image" else part.text or "" for part in parts]


def _joined(pieces: Sequence[Piece]) -> Iterator[Piece]:
    for text, group in groupby(pieces, lambda piece: isinstance(piece, str)):
        if text:
            yield "\n".join(str(piece) for piece in group)
        else:
            yield from group


def _check_size(messages: Sequence[Sequence[Piece]], limits: Limits) -> None:
    """Refuse before anything is decoded."""
    pieces = [piece for said in messages for piece in said]
    check_letters(sum(len(piece) for piece in pieces if isinstance(piece, str)), limits, "messages")
    pictures = sum(not isinstance(piece, str) for piece in pieces)
    if pictures > limits.pictures:
        text = f"{pictures} pictures; expected {limits.pictures} in a conversation at most"
        raise RefusedRequestError(text, code="too_many_images", param="messages")


def check_letters(letters: int, limits: Limits, param: str) -> None:
    """Refuse a prompt that is too long."""
    if letters > limits.prompt_characters:
        text = f"{letters} characters of text; expected {limits.prompt_characters} at most"
        raise RefusedRequestError(text, code="string_above_max_length", param=param)


@torch.no_grad()
def _codes(assistant: Assistant, image: Image.Image, size: int) -> torch.Tensor:
    tokenizer = assistant.model.at(size).image_tokenizer
    x_3HW = PictureReader(tokenizer.picture_shape).to_tensor(image)
    return tokenizer.encode(x_3HW[None].to(next(tokenizer.parameters()).device))[0].cpu()
