"""The requests of OpenAI's API, as far as this model can answer them, turned into conversations and settings."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vargpt_lightning.data.pictures import PictureReader
from vargpt_lightning.data.records import DRAWN, SEEN, Part, PicturePart, TextPart, Turn
from vargpt_lightning.evaluation.adapters.ours import Conversation, Speaker
from vargpt_lightning.models.answers import GenerationSettings
from vargpt_lightning.serving.incoming_pictures import picture_from_url
from vargpt_lightning.serving.limits import Limits, RefusedRequestError

if TYPE_CHECKING:
    from PIL import Image

Role = Literal["system", "developer", "user", "assistant"]


class ImageUrl(BaseModel):
    """Where a picture is; `detail` changes nothing here."""

    url: str
    detail: str | None = None


class ContentPart(BaseModel):
    """A piece of a message."""

    type: Literal["text", "image_url"]
    text: str | None = None
    image_url: ImageUrl | str | None = None

    @property
    def url(self) -> str | None:
        """The picture's URL."""
        return self.image_url.url if isinstance(self.image_url, ImageUrl) else self.image_url


class Message(BaseModel):
    """A turn; an answer of this server can be sent back as it came, with its `images`."""

    role: Role
    content: str | list[ContentPart] | None = None
    images: list[ContentPart] = Field(default_factory=list)


class Sampling(BaseModel):
    """What chat and drawing requests have in common; the first four are not OpenAI's."""

    model_config = ConfigDict(extra="allow")
    cfg: float | None = None
    image_top_k: int | None = None
    image_top_p: float | None = None
    image_temperature: float | None = None
    model: str | None = None
    n: int | None = Field(default=None, ge=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stream: bool | None = None
    user: str | None = None


class StreamOptions(BaseModel):
    """Whether the last piece of a stream counts the tokens."""

    include_usage: bool | None = None


class ChatRequest(Sampling):
    """POST /v1/chat/completions; `max_images` and `sketches` (pictures after each scale) are not OpenAI's."""

    messages: list[Message] = Field(min_length=1, max_length=1000)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    max_images: int | None = Field(default=None, ge=0)
    sketches: bool | None = None
    stream_options: StreamOptions | None = None


class DrawRequest(Sampling):
    """POST /v1/images/generations."""

    prompt: str
    size: str | None = None
    response_format: Literal["b64_json"] | None = None
    output_format: Literal["png"] | None = None
    partial_images: int | None = Field(default=None, ge=0)


# Sent by clients as a matter of course, without consequence for the answer.
_IGNORED: tuple[str, ...] = (
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "background",
)
_IGNORED += ("moderation", "quality", "style", "parallel_tool_calls", "verbosity")
_NEUTRAL: tuple[Any, ...] = (None, False, 0, [], {}, "none", {"type": "text"}, ["text"], ["text", "image"])


def parse(kind: type[Sampling], body: bytes) -> Any:
    """Return a request of a kind.

    Raises:
        RefusedRequestError: it is no JSON, a value is wrong, or something is asked for that there is not.
    """
    try:
        request = kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"] if not str(part).startswith(("list[", "str", "Image")))
        raise RefusedRequestError(f"{where or 'body'}: {first['msg']}", param=where or None) from error
    for key, value in (request.model_extra or {}).items():
        if key not in _IGNORED and not any(value == one and type(value) is type(one) for one in _NEUTRAL):
            text = f"{key[:60]} is not supported by this server; leave it out"
            raise RefusedRequestError(text, code="unsupported_parameter", param=key[:60])
    return request


def conversation(speaker: Speaker, messages: list[Message], limits: Limits, remote: bool = False) -> Conversation:
    """Return messages as the model takes them; pictures of the assistant are encoded to codes again.

    Raises:
        RefusedRequestError: too much text, too many pictures, one that cannot be read, or no last turn of the user's.
    """
    _check_size(messages, limits)
    if messages[-1].role != "user":
        raise RefusedRequestError(
            "the last message is not the user's; expected a question or a request", param="messages"
        )
    result = Conversation()
    for number, message in enumerate(messages):
        parts: list[Part] = []
        for part in _parts(message):
            if isinstance(part, str):
                if part.strip():
                    parts.append(TextPart(part.strip() if message.role == "assistant" else part))
                continue
            image = picture_from_url(part.url or "", limits, remote, f"messages.{number}.content")
            key = f"picture-{len(result.pictures)}"
            drawn = message.role == "assistant"
            result.pictures[key] = _codes(speaker, image) if drawn else speaker.see(image)
            parts.append(PicturePart(DRAWN if drawn else SEEN, key))
        if not parts and message.role != "assistant":
            raise RefusedRequestError(f"message {number + 1} is empty; expected text or a picture", param="messages")
        role = message.role if message.role in ("user", "assistant") else "system"
        result.turns.append(Turn(role, tuple(parts)))
    return result


def _parts(message: Message) -> list[str | ContentPart]:
    if isinstance(message.content, list):
        found: list[str | ContentPart] = [
            part if part.type == "image_url" else part.text or "" for part in message.content
        ]
    else:
        found = [message.content] if message.content else []
    return [*found, *message.images]


def _check_size(messages: list[Message], limits: Limits) -> None:
    """Refuse before anything is decoded."""
    parts = [part for message in messages for part in _parts(message)]
    letters = sum(len(part) for part in parts if isinstance(part, str))
    pictures = sum(not isinstance(part, str) for part in parts)
    check_letters(letters, limits, "messages")
    if pictures > limits.pictures:
        text = f"{pictures} pictures; expected {limits.pictures} in a conversation at most"
        raise RefusedRequestError(text, code="too_many_images", param="messages")


def check_letters(letters: int, limits: Limits, param: str) -> None:
    """Refuse a prompt that is too long."""
    if letters > limits.prompt_characters:
        text = f"{letters} characters of text; expected {limits.prompt_characters} at most"
        raise RefusedRequestError(text, code="string_above_max_length", param=param)


@torch.no_grad()
def _codes(speaker: Speaker, image: Image.Image) -> torch.Tensor:
    tokenizer = speaker.model.image_tokenizer
    x_3HW = PictureReader(tokenizer.picture_size).to_tensor(image)
    return tokenizer.encode(x_3HW[None].to(next(tokenizer.parameters()).device))[0].cpu()


def settings(speaker: Speaker, request: Sampling, limits: Limits) -> GenerationSettings:
    """Return how a request is answered; a seed that was not given is drawn.

    Raises:
        RefusedRequestError: a value is out of its range.
    """
    visual = speaker.settings.visual or speaker.model.sampling_settings()
    given = {"cfg": request.cfg, "top_k": request.image_top_k, "top_p": request.image_top_p}
    changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if request.image_temperature == 0:
        changes |= {"greedy": True, "smooth": False}
    elif request.image_temperature is not None:
        changes["temperature"] = request.image_temperature
    seed = secrets.randbelow(2**31) if request.seed is None else request.seed
    own: dict[str, Any] = {"seed": seed, "max_images": 1}
    if isinstance(request, ChatRequest):
        asked = request.max_completion_tokens or request.max_tokens or speaker.settings.max_new_tokens
        images = speaker.settings.max_images if request.max_images is None else request.max_images
        own |= {"max_new_tokens": min(asked, limits.new_tokens), "max_images": min(images, limits.images)}
        own |= {} if request.temperature is None else {"temperature": request.temperature}
        own |= {} if request.top_p is None else {"text_top_p": request.top_p}
    else:
        own["max_new_tokens"] = 1
    try:
        return replace(speaker.settings, visual=replace(visual, **changes), keep_scales=False, **own)
    except ValueError as error:
        raise RefusedRequestError(str(error), code="invalid_value") from error


def answers_wanted(request: Sampling, limits: Limits) -> int:
    """Return `n`."""
    wanted = request.n or 1
    if wanted > limits.answers:
        raise RefusedRequestError(
            f"n: got {wanted}, expected {limits.answers} at most", code="invalid_value", param="n"
        )
    return wanted
