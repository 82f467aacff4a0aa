"""Qwen2-VL and VARGPT-v1.1 as they are published: what config.json and shapes tell, and what is written of them.

The config.json of Qwen2-VL is flat as it lies on the hub; transformers 5 writes a section `text_config`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from vargpt_lightning.checkpoints.published.infer_config import State, sizes_of
from vargpt_lightning.models.core.aspect_ratios import RATIOS, first_scales
from vargpt_lightning.models.core.config import DecoderConfig, LanguageConfig, TokenIds, TokenizerConfig, VisionConfig
from vargpt_lightning.models.core.families import mrope_sections, sizes_of_published
from vargpt_lightning.models.core.scales import MapSize
from vargpt_lightning.models.vision import qwen2_vl
from vargpt_lightning.utils.errors import UserError

START = "start_embedding.weight"
SCALES = first_scales(RATIOS[1.0], 10).sizes
"""Those of square pictures of 512 pixels, which the published weights of VARGPT-v1.1 were trained on last."""
SPECIAL = {"image_gen_start": "start", "image_gen_end": "end", "image_gen": "pad"}
"""Our names of the tokens around drawn pictures, and the ends of theirs."""


def sizes_of_qwen2_vl(
    state: State, published: Mapping[str, Any] | None, scales: Sequence[MapSize] | None = None
) -> dict[str, Any]:
    """Return the sections of a `VARGPTConfig` that a Qwen2-VL or a VARGPT-v1.1 tells.

    Args:
        state: weights under our names.
        published: the config.json beside them.
        scales: of the token maps; None takes those of square pictures of 512 pixels.

    Raises:
        UserError: there is no config.json, or something in it is not built here.
    """
    if published is None:
        raise UserError("weights of Qwen2-VL do not tell their heads; expected the config.json beside them")
    sections: dict[str, Any] = {
        "language": LanguageConfig(**sizes_of_published(published)),
        "vision": VisionConfig(kind=qwen2_vl.NAME, **qwen2_vl.published_sizes(published)),
        "tokens": _tokens(published),
    }
    drawing = {key: value for key, value in state.items() if key.startswith(("visual_decoder.", "image_tokenizer."))}
    if drawing:
        sections |= sizes_of(drawing, None, scales or SCALES)
        if START in state:
            sections["decoder"] = replace(sections["decoder"], start_rows=state[START].shape[0])
    return sections


def _tokens(published: Mapping[str, Any]) -> dict[str, int]:
    special = published.get("special_tokens") or {}
    told = {**published, **(published.get("text_config") or {})}
    ids = {
        "bos": told.get("bos_token_id"),
        "eos": told.get("eos_token_id"),
        "pad": told.get("pad_token_id"),
        "image": published.get("image_token_id"),
        **{ours: special.get(f"image_gen_{theirs}_token_id") for ours, theirs in SPECIAL.items()},
    }
    if "vargpt" not in str(published.get("model_type")):  # which says what a prompt may begin with, not what it does
        del ids["bos"], ids["pad"]
    return {key: value for key, value in ids.items() if isinstance(value, int)}


def qwen2_vl_config(sections: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """Return the config.json of transformers' Qwen2-VL, flat, as versions 4 and 5 read it.

    Args:
        sections: of a `VARGPTConfig`, the language model's and the tower's among them.
        dtype: of the weights, such as "bfloat16".
    """
    language, vision = LanguageConfig(**sections["language"]), VisionConfig(**sections["vision"])
    tokens = sections.get("tokens", {})
    named = {"bos": "bos_token_id", "eos": "eos_token_id", "pad": "pad_token_id", "image": "image_token_id"}
    parts = mrope_sections(language.head_size, language.options)
    windows = {key: language.options[key] for key in _WINDOWS if key in language.options}
    return {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "model_type": "qwen2_vl",
        "attention_dropout": language.attention_dropout,
        "hidden_act": language.options.get("hidden_act", "silu"),
        "hidden_size": language.width,
        "initializer_range": language.initializer_range,
        "intermediate_size": language.mlp_width,
        "max_position_embeddings": language.max_positions,
        "num_attention_heads": language.heads,
        "num_hidden_layers": language.layers,
        "num_key_value_heads": language.kv_heads or language.heads,
        "rms_norm_eps": language.norm_eps,
        "rope_scaling": {"type": "mrope", "mrope_section": list(parts)},
        "rope_theta": language.rope_theta,
        "tie_word_embeddings": language.tie_embeddings,
        "torch_dtype": dtype,
        "use_sliding_window": False,
        "vocab_size": language.vocabulary,
        **windows,
        **{theirs: tokens[ours] for ours, theirs in named.items() if ours in tokens},
        "vision_config": {
            "depth": vision.layers,
            "embed_dim": vision.width,
            "hidden_size": language.width,
            "mlp_ratio": vision.mlp / vision.width if vision.mlp % vision.width else vision.mlp // vision.width,
            "num_heads": vision.heads,
            "in_chans": 3,
            "patch_size": vision.patch_size,
            "spatial_merge_size": 2,
            "spatial_patch_size": vision.patch_size,
            "temporal_patch_size": 2,
        },
    }


_WINDOWS = ("use_sliding_window", "sliding_window", "max_window_layers")


def v1_1_config(sections: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """Return the config.json of the authors' `VARGPTQwen2VLForConditionalGeneration`; arguments as above."""
    special: dict[str, Any] = {}
    for ours, theirs in SPECIAL.items():
        special[f"image_gen_{theirs}"] = f"<|image_gen_{theirs}|>"
        special[f"image_gen_{theirs}_token_id"] = sections["tokens"][ours]
    return {
        **qwen2_vl_config(sections, dtype),
        "architectures": ["VARGPTQwen2VLForConditionalGeneration"],
        "model_type": "vargpt_qwen2_vl",
        "special_tokens": special,
    }


def whole_sections(sections: Mapping[str, Any], unused_layer_norm: bool) -> dict[str, Any]:
    """Return the sections of a VARGPT-v1.1 with its settings, as plain values."""
    kinds = (LanguageConfig, VisionConfig, TokenizerConfig, DecoderConfig, TokenIds)
    plain = {key: asdict(value) if isinstance(value, kinds) else value for key, value in sections.items()}
    return {**plain, "preset": "v1_1", "published": "official", "unused_layer_norm": unused_layer_norm}
