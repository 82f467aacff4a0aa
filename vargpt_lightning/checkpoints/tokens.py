"""A model's text tokenizer: loaded as its configuration says, and held against it."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from vargpt_lightning.data.text.text_tokenizer import TextTokenizer
from vargpt_lightning.models.core.config import TokenIds, VARGPTConfig
from vargpt_lightning.utils.errors import UserError


def load_tokenizer(config: VARGPTConfig, path: str | Path, where: Path | None = None) -> TextTokenizer:
    """Load the text tokenizer of a model, with its own chat template where the model writes conversations by that.

    Args:
        config: the model's.
        path: a `tokenizer.json`, or a tokenizer's folder.
        where: what messages name; the path by default.

    Raises:
        UserError: it cannot be loaded, its chat template cannot be used, or its special tokens are not the model's.
    """
    tokenizer = TextTokenizer.load(path, config.own_chat, config.tokens.image)
    check_tokens(config, tokenizer, where or Path(path))
    return tokenizer


def check_tokens(config: VARGPTConfig, tokenizer: TextTokenizer, where: Path) -> None:
    """Refuse a tokenizer whose special tokens are not those that the model was trained with."""
    ids = {each.name: getattr(tokenizer, f"{each.name}_id") for each in fields(TokenIds)}
    for key, found in ids.items():
        expected = getattr(config.tokens, key)
        if expected != found:
            own = ", ".join(f"{name}: {number}" for name, number in ids.items())
            raise UserError(f"{where}: token {key} has id {found}, the model expects {expected}; its ids are {{{own}}}")
    if tokenizer.vocabulary > config.language.vocabulary:
        rows = config.language.vocabulary
        raise UserError(f"{where}: {tokenizer.vocabulary} token ids, the model's embedding has {rows} rows")
