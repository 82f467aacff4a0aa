"""Generation settings with what a command line, a page or a request changes. No torch until then."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from vargpt_lightning.inference.sizes import AUTO, size_named
from vargpt_lightning.utils.errors import UserError

if TYPE_CHECKING:  # the commands' help must not wait for torch
    from vargpt_lightning.inference.assistant import Assistant
    from vargpt_lightning.models.decoder.sampling import SamplingSettings
    from vargpt_lightning.models.generation.answers import GenerationSettings


def generation_settings(assistant: Assistant, arguments: Any) -> GenerationSettings:
    """Return an assistant's generation settings with what the command line changes."""
    given = {key: getattr(arguments, key) for key in ("top_k", "top_p", "cfg", "temperature", "sampler")}
    visual = assistant.settings.visual or assistant.model.sampling_settings()
    for key, value in given.items():
        greedy = key == "temperature" and value == 0
        if value is not None:
            visual = _changed(visual, key, **({"temperature": 1.0, "greedy": True} if greedy else {key: value}))
    if arguments.part is not None:
        visual = _told_parts(assistant, visual, arguments.part)
    words = {"temperature": "text_temperature", "max_new_tokens": "max_tokens", "seed": "seed"}
    settings = replace(assistant.settings, visual=visual)
    for key, name in words.items():
        if (value := getattr(arguments, name)) is not None:
            settings = _changed(settings, name, **{key: value})
    if arguments.size not in (None, AUTO):
        try:
            settings = replace(settings, size=size_named(arguments.size, assistant.model.config.tokenizer))
        except UserError as error:
            raise UserError(f"--{error}") from error
    return settings


def with_parts(
    assistant: Assistant, visual: SamplingSettings, parts: Mapping[str, Mapping[str, Any] | None]
) -> SamplingSettings:
    """Return visual settings with other parts of the sampler.

    Raises:
        UserError: there is no such part, an argument is wrong, or a part does not fit the model.
    """
    from vargpt_lightning.models.parts import check_parts

    visual = replace(visual, parts={name: dict(arguments or {}) for name, arguments in parts.items()})
    check_parts(visual.parts, assistant.model.facts(visual))
    return visual


def idle_parts_of(assistant: Assistant, visual: SamplingSettings) -> dict[str, str]:
    """Return the parts that change nothing on this model, with the reason why."""
    from vargpt_lightning.models.parts import idle_parts

    return idle_parts(visual.parts, assistant.model.facts(visual))


def _told_parts(assistant: Assistant, visual: SamplingSettings, texts: list[str]) -> SamplingSettings:
    """The settings with the parts that --part names; those that change nothing here are told of."""
    from vargpt_lightning.models.parts import parts_of

    try:
        visual = with_parts(assistant, visual, parts_of(texts))
        for arguments in visual.parts.values():  # before anything is drawn
            if "model" in arguments:
                assistant.sources.model(arguments["model"])
            if "scorer" in arguments and assistant.scorers is not None:
                assistant.sources.scorer(arguments["scorer"])
    except UserError as error:
        raise UserError(f"--part: {error}") from error
    for name, reason in idle_parts_of(assistant, visual).items():
        print(f"--part {name}: changes nothing here: {reason}", file=sys.stderr, flush=True)
    return visual


Settings = TypeVar("Settings", "GenerationSettings", "SamplingSettings")


def _changed(settings: Settings, name: str, **changes: Any) -> Settings:
    """The settings with what an option says; what is wrong is told by the option's name."""
    try:
        return replace(settings, **changes)
    except UserError as error:  # begins with the setting's name
        raise UserError(f"--{name.replace('_', '-')}: {str(error).partition(': ')[2]}") from error
