"""Options that several commands share, and what is read from them. No torch until then."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vargpt_lightning.utils.arguments import device_name, seed_number
from vargpt_lightning.utils.errors import UserError

if TYPE_CHECKING:  # a sub-command's help must not wait for torch
    from vargpt_lightning.inference.assistant import Assistant
    from vargpt_lightning.models.generation.answers import GenerationSettings


def add_sampling(result: Any) -> None:
    """Add what `generate` and `chat` have in common to a parser, or to a group of one."""
    result.add_argument("--top-k", type=int, metavar="K", help="codes kept per position, 0 for all (900)")
    result.add_argument("--top-p", type=float, metavar="P", help="probability mass kept per position (the model's)")
    result.add_argument("--cfg", type=float, metavar="W", help="guidance strength, 0 for none (1.5)")
    result.add_argument(
        "--temperature", type=float, metavar="T", help="temperature of the visual tokens; 0 takes the most likely (1)"
    )
    result.add_argument("--text-temperature", type=float, metavar="T", help="of the words (0)")
    result.add_argument("--max-tokens", type=int, metavar="N", help="text tokens of an answer (256)")
    result.add_argument("--seed", type=seed_number, metavar="S", help="seed of all random choices (0)")
    result.add_argument("--stage", metavar="NAME", help="the model as it was after this stage (the last finished one)")
    result.add_argument(
        "--device", type=device_name, metavar="NAME", help="such as cpu or cuda:0 (a GPU when there is one)"
    )


def generation_settings(assistant: Assistant, arguments: Any) -> GenerationSettings:
    """Return a assistant's generation settings with what the command line changes."""
    given = {key: getattr(arguments, key) for key in ("top_k", "top_p", "cfg", "temperature")}
    changes = {key: value for key, value in given.items() if value is not None}
    if changes.get("temperature") == 0:
        changes |= {"temperature": 1.0, "greedy": True}
    visual = assistant.settings.visual or assistant.model.sampling_settings()
    words = {"temperature": "text_temperature", "max_new_tokens": "max_tokens", "seed": "seed"}
    settings = replace(assistant.settings, visual=replace(visual, **changes))
    for key, name in words.items():
        if (value := getattr(arguments, name)) is not None:
            try:
                settings = replace(settings, **{key: value})
            except UserError as error:  # the setting may have another name than the option
                raise UserError(f"--{name.replace('_', '-')}: {str(error).partition(': ')[2]}") from error
    return settings
