"""A text tokenizer held against the configuration of the model that was trained with it."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from vargpt_lightning.data.text.text_tokenizer import TextTokenizer
from vargpt_lightning.models.core.config import TokenIds, VARGPTConfig
from vargpt_lightning.utils.errors import UserError


def check_tokens(config: VARGPTConfig, tokenizer: TextTokenizer, where: Path) -> None:
    """Refuse a tokenizer whose special tokens are not those that the model was trained with."""
    for key in (each.name for each in fields(TokenIds)):
        expected, found = getattr(config.tokens, key), getattr(tokenizer, f"{key}_id")
        if expected != found:
            raise UserError(f"{where}: token {key} has id {found}, the model expects {expected}")
    if tokenizer.vocabulary > config.language.vocabulary:
        rows = config.language.vocabulary
        raise UserError(f"{where}: {tokenizer.vocabulary} token ids, the model's embedding has {rows} rows")
