"""The chat template of a language model's tokenizer, and the special tokens it knows by name, as their files have them.

chat_template.jinja                 the template; else `chat_template` in one of the following, the first that has it
tokenizer_config.json               `bos_token` and the like, each a text or an object with `content`
chat_template.json                  of processors
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vargpt_lightning.utils.errors import UserError

TEMPLATE, CONFIG = "chat_template.jinja", "tokenizer_config.json"
NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""The names of special tokens that transformers gives to templates."""


@dataclass(frozen=True)
class ChatFiles:
    """What a tokenizer's folder says about conversations.

    Args:
        template: the Jinja source.
        tokens: special tokens by transformers' names for them.
        config: all of tokenizer_config.json but the template.
    """

    template: str
    tokens: dict[str, str]
    config: dict[str, Any] = field(default_factory=dict, compare=False)

    @classmethod
    def read(cls, folder: Path) -> ChatFiles:
        """Read a tokenizer's folder.

        Raises:
            UserError: it has no chat template, or one of its files cannot be read.
        """
        config = _object(folder / CONFIG)
        named = {**_object(folder / "special_tokens_map.json"), **config}
        tokens = {name: text for name in NAMED_TOKENS if (text := _content(named.get(name)))}
        template = _template(folder, config)
        if template is None:
            raise UserError(
                f"text tokenizer {folder}: no chat template ({TEMPLATE}, or chat_template in {CONFIG}); expected one, "
                "or model.chat_template: built_in"
            )
        return cls(template, tokens, {key: value for key, value in config.items() if key != "chat_template"})

    def write(self, folder: Path) -> None:
        """Write the files that `read` reads."""
        (folder / TEMPLATE).write_text(self.template, encoding="utf-8")
        (folder / CONFIG).write_text(json.dumps({**self.config, **self.tokens}, indent=2), encoding="utf-8")


def has_template(folder: Path) -> bool:
    """Return whether a tokenizer's folder has a chat template; raises UserError for a file that cannot be read."""
    return _template(folder, _object(folder / CONFIG)) is not None


def _template(folder: Path, config: Mapping[str, Any]) -> str | None:
    file = folder / TEMPLATE
    if file.is_file():
        return file.read_text(encoding="utf-8")
    for found in (config, _object(folder / "chat_template.json")):
        template = found.get("chat_template")
        if isinstance(template, list):  # several by name
            template = next((each.get("template") for each in template if each.get("name") == "default"), None)
        if isinstance(template, str):
            return template
    return None


def _content(token: Any) -> str | None:
    return token.get("content") if isinstance(token, Mapping) else token


def _object(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read ({error})") from error
    return found if isinstance(found, dict) else {}
