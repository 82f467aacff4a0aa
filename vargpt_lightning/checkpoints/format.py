"""Names of the files in a model's own directory."""

from __future__ import annotations

MODEL_TYPE, VERSION = "vargpt_lightning", 1
CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
)
"""Small files that belong to a text tokenizer and travel with the weights."""
FOLDER_SUFFIX = ".dcp"
"""Of a checkpoint's folder that all processes wrote."""
