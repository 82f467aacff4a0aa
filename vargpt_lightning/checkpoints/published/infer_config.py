"""The sizes of a model from the shapes of its weights, and from the config.json beside them what shapes do not tell.

Works on our names (see `checkpoints.from_official`). What neither tells has the value of the published models.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vargpt_lightning.checkpoints.published.bit_tokenizers import CODEBOOK, LAST
from vargpt_lightning.checkpoints.published.layouts import TABLES, TensorLike
from vargpt_lightning.models.core.aspect_ratios import RATIOS
from vargpt_lightning.models.core.config import DecoderConfig, LanguageConfig, TokenizerConfig, VisionConfig
from vargpt_lightning.models.core.families import sizes_of_published
from vargpt_lightning.models.core.scales import MapSize, ScaleSchedule
from vargpt_lightning.utils.errors import UserError

SCHEDULES = (
    (1, 2, 3, 4, 5, 6, 8, 10, 13, 16),
    (1, 2, 3, 4, 6, 9, 13, 18, 24, 32),
)
"""The published schedules: 256 px and 512 px."""

_HEAD = 128
"""Width of a head of the published LLaMA; CLIP's and VAR's are half of it."""

State = Mapping[str, TensorLike]


def sizes_of(
    state: State,
    published: Mapping[str, Any] | None = None,
    scales: Sequence[MapSize] | None = None,
    causal: bool = False,
) -> dict[str, Any]:
    """Return the sections of a `VARGPTConfig` that weights tell: language, vision, tokenizer, decoder, tokens.

    Args:
        state: weights under our names, all of them or of some submodules.
        published: the config.json that lies beside LLaVA's or VARGPT's weights.
        causal: they are a causal language model's; its config.json says the family and all sizes.
        scales: side lengths of the token maps; None takes the published schedule with as many scales and tokens.

    Raises:
        UserError: a weight that tells a size is missing, or what is told here and there differs.
    """
    if causal:
        if published is None:
            raise UserError("weights of a language model do not tell its family; expected its config.json beside them")
        return {"language": LanguageConfig(**sizes_of_published(published))}
    sections: dict[str, Any] = {}
    language = f"{_LANGUAGE}embed_tokens.weight"
    if language in state or any(key.startswith(_LANGUAGE) for key in state):
        sections["language"] = _language(state, (published or {}).get("text_config"), published)
    if any(key.startswith(_CLIP) for key in state):
        sections["vision"] = _vision(state, published)
    bits = _BITWISE in state
    if bits:
        sections["decoder"], scales = _bitwise_decoder(state), scales or _SQUARE
    elif any(key.startswith("visual_decoder.") for key in state):
        sections["decoder"], scales = _decoder(state, scales)
    if any(key.startswith("image_tokenizer.") for key in state):
        indices = f"image_tokenizer.{CODEBOOK}" in state
        sections["tokenizer"] = _tokenizer(state, scales) if indices else _bit_tokenizer(state, scales)
    elif bits:
        channels = _shape(state, _WORD, 2)[1]
        patchify = channels in _PATCHIFIED
        code_size = channels // 4 if patchify else channels
        sections["tokenizer"] = TokenizerConfig(
            kind="bits", scales=tuple(scales or ()), code_size=code_size, patchify=patchify
        )
    elif "decoder" in sections:
        # what a decoder alone tells of its image tokenizer
        code_size, vocabulary = _shape(state, _WORD, 2)[1], _shape(state, "visual_decoder.head.weight", 2)[0]
        sections["tokenizer"] = TokenizerConfig(scales=tuple(scales or ()), code_size=code_size, vocabulary=vocabulary)
    if published is not None and "language" in sections:
        sections["tokens"] = _tokens(published)
    return sections


_LANGUAGE = "language_model.model."
_CLIP = "vision_tower.model."
_WORD = "visual_decoder.word_embed.weight"
_BITWISE = "visual_decoder.cfg_uncond"
_SQUARE = RATIOS[1.0].sizes
"""The scales of a square picture of a million pixels, which Infinity's weights are for; they serve any others."""
_PATCHIFIED = (56,)
"""Bits of a token that stands for 2 x 2 positions, of the published models."""


def _language(state: State, given: Mapping[str, Any] | None, whole: Mapping[str, Any] | None = None) -> LanguageConfig:
    vocabulary, width = _shape(state, f"{_LANGUAGE}embed_tokens.weight", 2)
    block = f"{_LANGUAGE}layers.0."
    values, keys = (_shape(state, f"{block}self_attn.{name}_proj.weight", 2)[0] for name in "vk")
    heads = _heads(given, "num_attention_heads", 32, width, _HEAD, "language")
    if values != keys or keys % (width // heads):
        raise UserError(f"language: keys of width {keys} in {heads} heads of {width}; expected whole heads")
    kv_heads = keys // (width // heads)
    read = _Config(given, "text_config")
    top, text = ((values or {}).get("tie_word_embeddings") for values in (whole, given))
    rope = read("rope_parameters", None) or {}
    theta = rope.get("rope_theta", read("rope_theta", 10000.0))
    kind = (read("rope_scaling", None) or rope).get("rope_type", "default")
    if kind != "default":
        raise UserError(f"text_config.rope_scaling: type {kind!r} is not built here; expected 'default'")
    read.only("hidden_act", "silu")
    read.only("attention_bias", False)
    read.same("num_key_value_heads", kv_heads)
    read.same("num_hidden_layers", layers := _count(state, f"{_LANGUAGE}layers."))
    read.same("hidden_size", width)
    mlp = _shape(state, f"{block}mlp.gate_proj.weight", 2)[0]
    return LanguageConfig(
        width=width,
        layers=layers,
        heads=heads,
        kv_heads=None if kv_heads == heads else kv_heads,
        mlp=mlp,
        vocabulary=vocabulary,
        # what transformers takes where a config.json is silent differs from what a model without one has
        max_positions=read("max_position_embeddings", 4096 if given is None else 2048),
        norm_eps=read("rms_norm_eps", 1e-5 if given is None else 1e-6),
        rope_theta=theta,
        initializer_range=read("initializer_range", 0.02),
        # transformers 4 goes by the text's section and has true above it by default; 5 writes a tied table once
        tie_embeddings=bool(text or (TABLES[1] not in state and (top or False not in (top, text)))),
    )


def _vision(state: State, published: Mapping[str, Any] | None) -> VisionConfig:
    embeddings = f"{_CLIP}embeddings."
    positions, width = _shape(state, f"{embeddings}position_embedding.weight", 2)
    patch = _shape(state, f"{embeddings}patch_embedding.weight", 4)[-1]
    given = (published or {}).get("vision_config")
    read, top = _Config(given, "vision_config"), _Config(published, "config.json")
    read.only("model_type", "clip_vision_model")
    read.only("hidden_act", "quick_gelu")
    read.only("layer_norm_eps", 1e-5)
    top.only("vision_feature_select_strategy", "default")
    top.only("projector_hidden_act", "gelu")
    layers = _count(state, f"{_CLIP}encoder.layers.")
    size = math.isqrt(positions - 1) * patch
    read.same("hidden_size", width)
    read.same("num_hidden_layers", layers)
    read.same("image_size", size)
    layer = top("vision_feature_layer", -2)
    if not isinstance(layer, int):
        raise UserError(f"vision_feature_layer={layer!r} is not built here; expected one layer")
    return VisionConfig(
        kind="clip",
        picture_size=size,
        patch_size=patch,
        width=width,
        layers=layers,
        heads=_heads(given, "num_attention_heads", 16, width, _HEAD // 2, "vision"),
        mlp=_shape(state, f"{_CLIP}encoder.layers.0.mlp.fc1.weight", 2)[0],
        feature_layer=layer,
    )


def _tokenizer(state: State, scales: Sequence[MapSize] | None) -> TokenizerConfig:
    prefix = "image_tokenizer."
    vocabulary, code_size = _shape(state, f"{prefix}quantize.embedding.weight", 2)
    hits = state.get(f"{prefix}quantize.ema_vocab_hit_SV")
    if scales is None:
        scales = _schedule(hits.shape[0] if hits is not None else None, None, "image_tokenizer")
    return TokenizerConfig(
        scales=tuple(scales),
        code_size=code_size,
        vocabulary=vocabulary,
        quant_kernel=_shape(state, f"{prefix}quant_conv.weight", 4)[-1],
        **_stack(state, prefix),
        **_phi(state, f"{prefix}quantize.quant_resi."),
    )


def _bit_tokenizer(state: State, scales: Sequence[MapSize] | None) -> TokenizerConfig:
    prefix = "image_tokenizer."
    bits = _shape(state, f"{prefix}{LAST}", 4)[0]
    token = _shape(state, _WORD, 2)[1] if _WORD in state else 4 * bits if 4 * bits in _PATCHIFIED else bits
    if token not in (bits, 4 * bits):
        raise UserError(f"visual_decoder: {token} bits a token, the image tokenizer has {bits} a position")
    return TokenizerConfig(
        kind="bits", scales=tuple(scales or _SQUARE), code_size=bits, patchify=token != bits, **_stack(state, prefix)
    )


def _stack(state: State, prefix: str) -> dict[str, Any]:
    """Sizes of an image tokenizer's encoder and decoder."""
    channels = _shape(state, f"{prefix}encoder.conv_in.weight", 4)[0]
    levels = _count(state, f"{prefix}encoder.down.")
    widths = [_shape(state, f"{prefix}encoder.down.{i}.block.0.conv1.weight", 4)[0] for i in range(levels)]
    return {
        "channels": channels,
        "channel_multipliers": tuple(width // channels for width in widths),
        "residual_blocks": _count(state, f"{prefix}encoder.down.0.block."),
        "attention": any(key.startswith(f"{prefix}encoder.mid.attn_1.") for key in state),
    }


def _phi(state: State, prefix: str) -> dict[str, Any]:
    """How the residual convolutions are shared among the scales."""
    if partial := _count(state, f"{prefix}qresi_ls."):
        return {"phi": "partial", "phi_count": partial}
    if f"{prefix}qresi.weight" in state:
        return {"phi": "shared"}
    return {"phi": "separate"} if _count(state, prefix) else {"residual_ratio": 0.0}


def _decoder(state: State, scales: Sequence[MapSize] | None) -> tuple[DecoderConfig, tuple[MapSize, ...]]:
    prefix = "visual_decoder."
    depth, width = _count(state, f"{prefix}blocks."), _shape(state, f"{prefix}pos_start", 3)[-1]
    tokens, levels = _shape(state, f"{prefix}pos_1LC", 3)[1], _shape(state, f"{prefix}lvl_embed.weight", 2)[0]
    schedule = tuple(scales) if scales is not None else _schedule(levels, tokens, "visual_decoder")
    told = ScaleSchedule(schedule)
    if (told.num_scales, told.num_tokens) != (levels, tokens):
        raise UserError(
            f"scales: {list(schedule)} make {told.num_tokens} tokens in {told.num_scales} scales; the weights have "
            f"{tokens} in {levels}"
        )
    scale = state.get(f"{prefix}blocks.0.attn.scale_mul_1H11")
    heads = depth if scale is None else scale.shape[1]
    hidden = _shape(state, f"{prefix}blocks.0.ffn.fc1.weight", 2)[0]
    config = DecoderConfig(
        depth=depth,
        width=None if width == 64 * depth else width,
        heads=None if heads == depth else heads,
        classes=_shape(state, f"{prefix}class_emb.weight", 2)[0] - 1,
        mlp_ratio=hidden / width,
        shared_adaln=f"{prefix}shared_ada_lin.1.weight" in state,
        qk_norm=scale is not None,
    )
    return config, schedule


def _bitwise_decoder(state: State) -> DecoderConfig:
    prefix = "visual_decoder."
    text_rows, text_width = _shape(state, _BITWISE, 2)
    width = _shape(state, f"{prefix}pos_start", 3)[-1]
    chunks = _count(state, f"{prefix}block_chunks.")
    first = f"{prefix}block_chunks.0.module." if chunks else f"{prefix}blocks."
    depth = _count(state, first) * max(chunks, 1)
    heads = _shape(state, f"{first}0.sa.scale_mul_1H11", 4)[1]
    return DecoderConfig(
        depth=depth,
        width=None if width == 64 * depth else width,
        heads=None if heads == depth else heads,
        mlp_ratio=_shape(state, f"{first}0.ffn.fc1.weight", 2)[0] / width,
        chunks=max(chunks, 1),
        text_width=None if text_width == width else text_width,
        text_rows=text_rows,
        levels=_shape(state, f"{prefix}lvl_embed.weight", 2)[0],
    )


def scales_of_levels(levels: Sequence[int]) -> tuple[int, ...]:
    """Return the side lengths of the scales from the scale index of every token.

    Raises:
        UserError: a scale is not square, or the indices do not count up.
    """
    counts = [list(levels).count(k) for k in range(max(levels, default=0) + 1)]
    sides = tuple(math.isqrt(count) for count in counts)
    if [side**2 for side in sides] != counts or list(levels) != sorted(levels) or not counts[0]:
        raise UserError(f"lvl_1L: the scales have {counts} tokens; expected squares, one scale after the other")
    return sides


def _schedule(levels: int | None, tokens: int | None, part: str) -> tuple[int, ...]:
    for sizes in SCHEDULES:
        known = ScaleSchedule(sizes)
        if levels in (None, known.num_scales) and tokens in (None, known.num_tokens):
            return sizes
    there = f"{levels} scales" + (f" and {tokens} tokens" if tokens else "")
    raise UserError(f"{part}: {there} are none of the published schedules; expected --scales, such as 1,2,3,4")


def _tokens(published: Mapping[str, Any]) -> dict[str, int]:
    """Ids of the special tokens that a config.json names; the others are left to the text tokenizer."""
    text = published.get("text_config") or {}
    special = published.get("special_tokens") or {}
    ids = {
        "bos": text.get("bos_token_id", 1),
        "eos": text.get("eos_token_id", 2),
        "pad": published.get("pad_token_id", text.get("pad_token_id")),
        "image": published.get("image_token_index", published.get("image_token_id", 32000)),
        "image_gen_start": special.get("image_gen_start_token_id"),
        "image_gen_end": special.get("image_gen_end_token_id"),
        "image_gen": special.get("image_gen_pad_token_id"),
    }
    return {key: value for key, value in ids.items() if isinstance(value, int)}


def _heads(given: Mapping[str, Any] | None, key: str, default: int, width: int, size: int, part: str) -> int:
    """Attention heads: shapes do not tell them."""
    heads = width // size if given is None else int(given.get(key, default))
    if not heads or width % heads:
        told = f"{key}={heads}" if given is not None else f"heads of {size}"
        raise UserError(f"{part}: {told} do not divide the width {width}; a config.json beside the weights says it")
    return heads


class _Config:
    """A section of a published config.json, or none."""

    def __init__(self, values: Mapping[str, Any] | None, name: str) -> None:
        self.values, self.name = values or {}, name

    def __call__(self, key: str, default: Any) -> Any:
        value = self.values.get(key)
        return default if value is None else value

    def only(self, key: str, built: Any) -> None:
        """Refuse a value that is not built here."""
        self._check(key, built, "is not built here; expected")

    def same(self, key: str, found: Any) -> None:
        """Refuse a value that the shapes contradict."""
        self._check(key, found, "but the weights say")

    def _check(self, key: str, wanted: Any, words: str) -> None:
        if self(key, wanted) != wanted:
            raise UserError(f"{self.name}.{key}={self.values[key]!r} {words} {wanted!r}")


def _shape(state: State, key: str, dimensions: int) -> tuple[int, ...]:
    if key not in state:
        raise UserError(f"key {key} is missing; the model's sizes are read from it")
    shape = tuple(state[key].shape)
    if len(shape) != dimensions:
        raise UserError(f"key {key} has shape {shape}; expected {dimensions} dimensions")
    return shape


def _count(state: State, prefix: str) -> int:
    """How many numbered things there are under a prefix; they are numbered from 0 on."""
    number: Callable[[str], re.Match[str] | None] = re.compile(re.escape(prefix) + r"(\d+)\.").match
    found = {int(match[1]) for match in map(number, state) if match}
    if found != set(range(len(found))):
        missing = min(set(range(max(found))) - found)
        raise UserError(f"keys {prefix}{missing}.* are missing; there are numbers up to {max(found)}")
    return len(found)
