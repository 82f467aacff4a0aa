"""The decoder of drawn pictures that a configuration asks for."""

from __future__ import annotations

from vargpt_lightning.models.bitwise.bitwise_decoder import BitwiseDecoder
from vargpt_lightning.models.core.config import VARGPTConfig
from vargpt_lightning.models.core.settings import DECODER_SETTINGS
from vargpt_lightning.models.decoder.picture_decoder import PictureDecoder
from vargpt_lightning.models.decoder.visual_decoder import VisualDecoder


def build_decoder(config: VARGPTConfig) -> PictureDecoder:
    """Return a decoder for the configured kind of codes, with fresh weights."""
    tokenizer, decoder = config.tokenizer, config.decoder
    if tokenizer.kind == "bits":
        settled = {name: getattr(config.settings, name) for name in DECODER_SETTINGS}
        return BitwiseDecoder(scales=tokenizer.scales, bits=tokenizer.token_channels, **decoder.for_bits(), **settled)
    return VisualDecoder(
        scales=tokenizer.scales,
        code_size=tokenizer.token_channels,
        vocabulary=tokenizer.vocabulary,
        **decoder.for_indices(),
    )
