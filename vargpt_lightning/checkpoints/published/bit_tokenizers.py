"""Names of Infinity's image tokenizers: each layer is wrapped in a class with a name of its own.

`encoder.down.0.block.0.norm1.norm.weight` is our `encoder.down.0.block.0.norm1.weight`. Older files, made before the
wrapping, have our very names.

Legend: d bits of a position.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from vargpt_lightning.models.core.config import TokenizerConfig
from vargpt_lightning.utils.errors import UserError

MASKS = ("quantizer.lfq.mask", "quantize.lfq.mask")
"""The buffers that the released code saves, once for each name by which it calls its quantizer: worth of each bit."""
LAST = "encoder.conv_out.weight"
CODEBOOK = "quantize.embedding.weight"


def is_wrapped(keys: Iterable[str]) -> bool:
    """Whether names are those of wrapped layers."""
    return any(key.endswith("conv_in.conv.weight") for key in keys)


def unwrapped(key: str) -> str:
    """Return a layer's name without the wrapper's."""
    *layer, _, kind = key.split(".")
    return ".".join([*layer, kind])


def wrapped(key: str) -> str:
    """Return a layer's name with the wrapper's."""
    *layer, kind = key.split(".")
    return ".".join([*layer, "norm" if layer[-1].startswith("norm") else "conv", kind])


def masks(official: Mapping[str, Any], names: Iterable[str] = MASKS) -> dict[str, Tensor]:
    """Return the buffers that belong to published weights: powers of two (d,), of which the 64th overflows."""
    last = next((official[key] for key in official if key.endswith("encoder.conv_out.conv.weight")), None)
    if last is None:
        return {}
    worth_d = 2 ** torch.arange(last.shape[0] - 1, -1, -1)
    return {key: worth_d.clone() for key in names}


def check_decoder(state: Mapping[str, Any], config: TokenizerConfig, source: str) -> None:
    """Refuse weights of a decoder that draws other bits than the image tokenizer has.

    Args:
        state: the decoder's weights by its own names.

    Raises:
        UserError: says both.
    """
    word = state.get("word_embed.weight")
    if word is None or "cfg_uncond" not in state or config.kind != "bits":
        return
    if (bits := word.shape[1]) != config.token_channels:
        raise UserError(
            f"{source}: draws {bits} bits a token, but model.tokenizer has {config.token_channels}; bits are what the "
            "weights were trained for, expected the same"
        )


def check_kind(state: Mapping[str, Any], config: TokenizerConfig, source: str) -> None:
    """Refuse weights of an image tokenizer of the other kind, or of other bits.

    Args:
        state: the tokenizer's weights by its own names.

    Raises:
        UserError: says both.
    """
    if LAST not in state:
        return
    there = "indices" if CODEBOOK in state else "bits"
    if there != config.kind:
        raise UserError(f"{source}: is an image tokenizer of {there}, but model.tokenizer.kind is {config.kind!r}")
    bits = state[LAST].shape[0]
    if there == "bits" and bits != config.code_size:
        raise UserError(
            f"{source}: has {bits} bits a position, but model.tokenizer.code_size is {config.code_size}; bits are what "
            "the weights were trained for, expected the same"
        )
