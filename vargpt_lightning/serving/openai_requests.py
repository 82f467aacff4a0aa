"""The requests of OpenAI's API, as far as this model can answer them, and the settings that they ask for."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from vargpt_lightning.inference.assistant import Assistant
from vargpt_lightning.inference.changed_settings import idle_parts_of, with_parts
from vargpt_lightning.inference.sizes import AUTO, size_named
from vargpt_lightning.models.decoder.sampling import COLDEST, SamplingSettings
from vargpt_lightning.models.generation.answers import GenerationSettings
from vargpt_lightning.models.parts import made_of
from vargpt_lightning.serving.limits import Limits, RefusedRequestError
from vargpt_lightning.serving.openai_messages import Message, check_letters
from vargpt_lightning.serving.openai_parameters import check_extra
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.http.json_values import Flag, Number, Whole, told
from vargpt_lightning.utils.http.multipart import FormPart, MultipartError, parse_form


def _texts(value: Any) -> Any:
    """One text or several as several; empty ones ask for nothing."""
    several = [value] if isinstance(value, str) else value
    return [one for one in several if one != ""] if isinstance(several, list) else several or []


Named = BeforeValidator(lambda value: None if value == "" else value)
Stops = Annotated[list[str], BeforeValidator(_texts)]


class Sampling(BaseModel):
    """What chat and drawing requests have in common; the first six are not OpenAI's."""

    model_config = ConfigDict(extra="allow")
    cfg: Number | None = None
    image_top_k: Whole | None = None
    image_top_p: Number | None = None
    image_temperature: Number | None = None
    image_sampler: str | None = None
    image_parts: dict[str, dict[str, Any] | None] | None = None
    model: str | None = None
    n: Whole | None = None
    seed: Whole | None = None
    size: Annotated[str | None, Named] = None
    stream: Flag | None = None
    user: str | None = None


class StreamOptions(BaseModel):
    """Whether the last piece of a stream counts the tokens."""

    include_usage: Flag | None = None


class ChatRequest(Sampling):
    """POST /v1/chat/completions; `max_images` and `sketches` (pictures after each scale) are not OpenAI's."""

    messages: list[Message] = Field(min_length=1, max_length=1000)
    temperature: Number | None = None
    top_p: Number | None = None
    max_tokens: Whole | None = None
    max_completion_tokens: Whole | None = None
    max_images: Whole | None = None
    stop: Stops = Field(default_factory=list)
    sketches: Flag | None = None
    stream_options: StreamOptions | None = None


class DrawRequest(Sampling):
    """POST /v1/images/generations."""

    prompt: str
    response_format: Annotated[Literal["b64_json"] | None, Named] = None
    output_format: Annotated[Literal["png"] | None, Named] = None
    partial_images: Whole | None = None


class EditRequest(DrawRequest):
    """POST /v1/images/edits, whose pictures are files of the form."""


# The settings have ranges of their own; these are OpenAI's, or of what no setting holds.
_RANGES = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "image_top_p": (0, 1),
    "n": (1, None),
    "max_tokens": (1, None),
    "max_completion_tokens": (1, None),
    "max_images": (0, None),
    "partial_images": (0, None),
}


PICTURES = ("image", "image[]")
"""Names of a form's pictures."""
TEXTS = ("prompt", "model", "size", "response_format", "output_format", "user", "image_sampler")
NAMING = frozenset({"model", "scorer"})
"""Arguments of parts that name a model or a scorer: what is loaded for them is not a client's to choose."""
MOST_VALUES = 20_000  # brackets and commas of a body: a thousand messages have some 6,000


def parse(kind: type[Sampling], body: bytes) -> Any:
    """Return a request of a kind.

    Raises:
        RefusedRequestError: it is no JSON, has too many values, a value is wrong, or something is asked for that there
            is not.
    """
    # Pydantic holds the interpreter while it reads: millions of values would keep all others waiting.
    if (values := sum(map(body.count, (b"[", b"{", b",")))) > MOST_VALUES:
        raise RefusedRequestError(f"the body has {values} brackets and commas; expected {MOST_VALUES} at most")
    try:
        request = kind.model_validate_json(body)
    except ValidationError as error:
        where, text = told(error)
        raise RefusedRequestError(f"{where or 'body'}: {text}", param=where or None) from error
    for field, (least, most) in _RANGES.items():
        value = getattr(request, field, None)
        if value is not None and not (least <= value and (most is None or value <= most)):
            expected = f"{least} or more" if most is None else f"a number from {least} to {most}"
            raise _invalid(field, f"got {value!r}, expected {expected}")
    check_extra(request.model_extra)
    return request


def parse_edit(body: bytes, content_type: str) -> tuple[EditRequest, list[bytes]]:
    """Return an edit's request and the files of its pictures, from a form as OpenAI's clients send it.

    Raises:
        RefusedRequestError: it is no form, a value is wrong, there is no picture, or another file, such as a mask.
    """
    try:
        parts = parse_form(body, content_type)
        for part in parts:
            if part.filename is not None and part.name not in PICTURES:  # a mask: the whole picture is drawn anew
                text = f"{part.name[:60]} is not supported by this server; leave it out"
                raise RefusedRequestError(text, code="unsupported_parameter", param=part.name[:60])
        fields = {part.name: _value(part) for part in parts if part.name not in PICTURES}
    except MultipartError as error:
        raise RefusedRequestError(str(error)) from error
    pictures = [part.data for part in parts if part.name in PICTURES]
    if not any(pictures):
        raise _invalid("image", "got no picture, expected the file of the one to change")
    return parse(EditRequest, json.dumps(fields).encode()), pictures


def _value(part: FormPart) -> Any:
    """A field's value: a text, or what the JSON in it says for those that are none."""
    text = part.text
    if part.name in TEXTS:
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def settings(assistant: Assistant, request: Sampling, limits: Limits) -> GenerationSettings:
    """Return how a request is answered; a seed that was not given is drawn.

    Raises:
        RefusedRequestError: a value is out of its range.
    """
    seed = secrets.randbelow(2**31) if request.seed is None else request.seed
    own = replace(assistant.settings, visual=_visual(assistant, request, limits), keep_scales=False, max_images=1)
    own = replace(_changed(own, "seed", "seed", seed), size=_size(assistant, request.size))
    if not isinstance(request, ChatRequest):
        return replace(own, max_new_tokens=1)
    asked = request.max_completion_tokens or request.max_tokens or assistant.settings.max_new_tokens
    images = assistant.settings.max_images if request.max_images is None else request.max_images
    own = replace(own, max_new_tokens=min(asked, limits.new_tokens), max_images=min(images, limits.images))
    if request.temperature is not None and 0 < request.temperature < COLDEST:
        expected = f"0 (the likeliest token) or a number from {COLDEST:g} to {_RANGES['temperature'][1]}"
        raise _invalid("temperature", f"got {request.temperature!r}, expected {expected}")
    own = _changed(own, "temperature", "temperature", request.temperature)
    likeliest = request.top_p == 0  # of the settings 0 keeps all
    own = replace(own, temperature=0.0) if likeliest else _changed(own, "top_p", "text_top_p", request.top_p)
    check_letters(sum(map(len, request.stop)), limits, "stop")
    return _changed(own, "stop", "stop", tuple(request.stop))


def _size(assistant: Assistant, text: str | None) -> int:
    if text in (None, AUTO):
        return assistant.settings.size
    try:
        return size_named(str(text), assistant.model.config.tokenizer)
    except UserError as error:
        raise RefusedRequestError(str(error), code="invalid_value", param="size") from error


def _visual(assistant: Assistant, request: Sampling, limits: Limits) -> SamplingSettings:
    visual = assistant.settings.visual or assistant.model.sampling_settings()
    visual = _changed(visual, "cfg", "cfg", request.cfg)
    visual = _changed(visual, "image_sampler", "sampler", request.image_sampler)
    visual = _changed(visual, "image_top_k", "top_k", request.image_top_k)
    if request.image_parts is not None:
        visual = changed_parts(assistant, visual, request.image_parts, limits)
    if 0 in (request.image_temperature, request.image_top_p):
        return replace(visual, greedy=True, smooth=False)
    visual = _changed(visual, "image_top_p", "top_p", request.image_top_p)
    if request.image_temperature is not None:
        visual = replace(visual, greedy=False)
    return _changed(visual, "image_temperature", "temperature", request.image_temperature)


def changed_parts(
    assistant: Assistant, visual: SamplingSettings, given: Mapping[str, Mapping[str, Any] | None], limits: Limits
) -> SamplingSettings:
    """Return settings with parts of the sampler; files of the server, which some name, are not a client's to choose.

    Raises:
        RefusedRequestError: a part is wrong, or asks for more than the server gives.
    """
    own = assistant.settings.visual.parts if assistant.settings.visual else {}
    for name, arguments in given.items():
        for key in NAMING.intersection(arguments or {}):
            if (arguments or {})[key] != own.get(name, {}).get(key):
                raise _invalid("image_parts", f"{name}.{key} is the server's to choose; expected none")
    try:
        visual = with_parts(assistant, visual, given)
        if (most := max((part.candidates for part in made_of(visual.parts)), default=1)) > limits.answers:
            raise UserError(f"got {most} candidates of a picture, expected {limits.answers} at most")
        return visual
    except UserError as error:
        raise _invalid("image_parts", str(error)) from error


Settings = TypeVar("Settings", GenerationSettings, SamplingSettings)


def _changed(settings: Settings, field: str, key: str, value: Any) -> Settings:
    """The settings with what a field of the request says, if anything."""
    if value is None:
        return settings
    try:
        return replace(settings, **{key: value})
    except UserError as error:  # begins with the setting's name, which may be another than the field's
        raise _invalid(field, str(error).partition(": ")[2]) from error


def told_parts(assistant: Assistant, how: GenerationSettings) -> dict[str, Any]:
    """Return what a response says of parts that change nothing on this model: `idle_parts`, each with the reason."""
    idle = idle_parts_of(assistant, how.visual) if how.visual and how.visual.parts else {}
    return {"idle_parts": idle} if idle else {}


def answers_wanted(request: Sampling, limits: Limits) -> int:
    """Return `n`."""
    wanted = request.n or 1
    if wanted > limits.answers:
        raise _invalid("n", f"got {wanted}, expected {limits.answers} at most")
    return wanted


def _invalid(field: str, text: str) -> RefusedRequestError:
    return RefusedRequestError(f"{field}: {text}", code="invalid_value", param=field)
