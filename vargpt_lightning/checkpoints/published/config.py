"""The small files that the published layouts have beside their weights, made from our configuration."""

from __future__ import annotations

from typing import Any

from vargpt_lightning.models.core.config import LanguageConfig, TokenIds, VisionConfig
from vargpt_lightning.models.core.families import OURS

CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' '}}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
"""LLaVA-1.5's turns as `apply_chat_template` of transformers takes them."""


def llava_config(sections: dict[str, Any], dtype: str) -> dict[str, Any]:
    """Return the config.json of a `LlavaForConditionalGeneration`; versions 4 and 5 of transformers read it.

    Args:
        sections: of a `VARGPTConfig`, the language model's and the tower's among them.
        dtype: of the weights, such as "float16".
    """
    language, vision = LanguageConfig(**sections["language"]), VisionConfig(**sections["vision"])
    tokens = {**TokenIds().__dict__, **sections.get("tokens", {})}
    return {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "ignore_index": -100,
        "image_seq_length": vision.patches,
        "image_token_index": tokens["image"],
        "pad_token_id": tokens["pad"],
        "projector_hidden_act": "gelu",
        "tie_word_embeddings": language.tie_embeddings,
        "torch_dtype": dtype,
        "vision_feature_layer": vision.feature_layer,
        "vision_feature_select_strategy": "default",
        "text_config": _text(language, tokens, dtype),
        "vision_config": _vision(vision),
    }


def vargpt_config(sections: dict[str, Any], dtype: str) -> dict[str, Any]:
    """Return the config.json of the authors' `VARGPTLlavaForConditionalGeneration`; arguments as `llava_config`."""
    tokens = {**TokenIds().__dict__, **sections.get("tokens", {})}
    special: dict[str, Any] = {}
    for theirs, ours in (("start", "image_gen_start"), ("end", "image_gen_end"), ("pad", "image_gen")):
        special[f"image_gen_{theirs}"] = f"<|image_gen_{theirs}|>"
        special[f"image_gen_{theirs}_token_id"] = tokens[ours]
    language = sections["language"]
    return {
        **llava_config(sections, dtype),
        "architectures": ["VARGPTLlavaForConditionalGeneration"],
        "model_type": "vargpt_llava",
        "hidden_size": language["width"],
        "vocab_size": language["vocabulary"],
        "special_tokens": special,
    }


def llava_processor(sections: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the files of LLaVA's processor by their names."""
    vision = VisionConfig(**sections["vision"])
    mean, std = vision.scaling
    side = vision.picture_size
    pictures = {
        "image_processor_type": "CLIPImageProcessor",
        "processor_class": "LlavaProcessor",
        "do_resize": True,
        "size": {"shortest_edge": side},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(mean),
        "image_std": list(std),
        "do_convert_rgb": True,
    }
    processor = {
        "processor_class": "LlavaProcessor",
        "image_token": "<image>",
        "num_additional_image_tokens": 1,
        "patch_size": vision.patch_size,
        "vision_feature_select_strategy": "default",
    }
    words = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "processor_class": "LlavaProcessor",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "extra_special_tokens": {"image_token": "<image>"},
        "image_token": "<image>",
        "padding_side": "left",
        "model_max_length": sections["language"]["max_positions"],
    }
    template = {"chat_template": CHAT_TEMPLATE}
    return {
        "preprocessor_config.json": pictures,
        "processor_config.json": processor,
        "tokenizer_config.json": words,
        "chat_template.json": template,
    }


def causal_config(language: LanguageConfig, tokens: dict[str, int], dtype: str) -> dict[str, Any]:
    """Return the config.json of a causal language model of any family.

    Args:
        tokens: the ids that are known, `bos` and `eos` among them or not.
        dtype: of the weights, such as "float16".
    """
    if language.family == OURS:
        return _text(language, {"bos": 1, "eos": 2, **tokens}, dtype)
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    from vargpt_lightning.models.language.family_network import transformers_config

    values = transformers_config(language).to_dict()
    values.pop("dtype", None)
    values |= {"torch_dtype": dtype, "architectures": [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[language.family]]}
    for name in ("bos", "eos"):
        if name in tokens:
            values[f"{name}_token_id"] = tokens[name]
    return values


def _text(language: LanguageConfig, tokens: dict[str, int], dtype: str) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": language.width,
        "intermediate_size": language.mlp_width,
        "num_hidden_layers": language.layers,
        "num_attention_heads": language.heads,
        "num_key_value_heads": language.kv_heads or language.heads,
        **({} if language.head_width is None else {"head_dim": language.head_width}),
        "vocab_size": language.vocabulary,
        "max_position_embeddings": language.max_positions,
        "rms_norm_eps": language.norm_eps,
        "rope_theta": language.rope_theta,
        "initializer_range": language.initializer_range,
        "hidden_act": "silu",
        "tie_word_embeddings": language.tie_embeddings,
        "bos_token_id": tokens["bos"],
        "eos_token_id": tokens["eos"],
        "torch_dtype": dtype,
    }


def _vision(vision: VisionConfig) -> dict[str, Any]:
    return {
        "model_type": "clip_vision_model",
        "hidden_size": vision.width,
        "intermediate_size": vision.mlp,
        "num_hidden_layers": vision.layers,
        "num_attention_heads": vision.heads,
        "image_size": vision.picture_size,
        "patch_size": vision.patch_size,
        "projection_dim": 768,
        "vocab_size": 32000,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
        **vision.options,
    }
