"""The image tokenizer that a configuration asks for."""

from __future__ import annotations

from vargpt_lightning.models.core.config import TokenizerConfig
from vargpt_lightning.models.tokenizer.bit_tokenizer import BitTokenizer
from vargpt_lightning.models.tokenizer.image_tokenizer import ImageTokenizer


def build_tokenizer(config: TokenizerConfig) -> ImageTokenizer | BitTokenizer:
    """Return an image tokenizer of the configured kind and sizes, with fresh weights."""
    return (BitTokenizer if config.kind == "bits" else ImageTokenizer)(**config.arguments())
