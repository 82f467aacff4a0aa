"""Untrained models of a few thousand weights, one of each kind, written as their publishers write them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

WIDTH = 32
LLAVA_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] + ' ' }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def chatml(picture: str) -> str:
    return (
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
        "{% for part in message['content'] %}{% if part['type'] == 'image' %}" + picture + "{% else %}"
        "{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )


def inline(user: str, assistant: str, picture: str, start: str = "") -> str:
    """A template of turns in one line each."""
    return (
        start + "{% for message in messages %}" + user + "{% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}" + picture + "{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
        "{% endfor %}{% if add_generation_prompt %}{{ " + repr(assistant) + " }}{% endif %}"
    )


def tokenizer(named: dict[str, str] | None = None, more: list[str] | None = None, bos: bool = False) -> Any:
    """A byte-level tokenizer; `named` are special tokens that have an attribute, `more` others."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    start = {"<s>": 0, "</s>": 1, "<pad>": 2, "<unk>": 3}
    vocabulary = start | {letter: number for number, letter in enumerate(alphabet, start=len(start))}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    if bos:
        made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    special = [*start, *(named or {}).values(), *(more or [])]
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        extra_special_tokens=named or {},
    )  # fmt: skip


def text(kind: str = "llama", **more: Any) -> dict[str, Any]:
    return {
        "model_type": kind, "vocab_size": 400, "hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 2048, "bos_token_id": 0,
        "eos_token_id": 1, "pad_token_id": 2, **more,
    }  # fmt: skip


def clip_vision(**more: Any) -> dict[str, Any]:
    return {
        "model_type": "clip_vision_model", "hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 2, "image_size": 28, "patch_size": 14, "projection_dim": 16, **more,
    }  # fmt: skip


def write(folder: Path, model: Any, processor: Any, seed: int = 0) -> Path:
    """Give a model weights that make its answers differ, and write it with its processor."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if weight.dim() > 1 or "class_embedding" in name:
            weight.data.normal_(0, weight[0].numel() ** -0.5 * (4 if "embed" in name else 1.5), generator=generator)
    model.generation_config.eos_token_id = 1
    model.generation_config.bos_token_id, model.generation_config.pad_token_id = 0, 2
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def llava(folder: Path, template: str | None = LLAVA_TEMPLATE) -> Path:
    words = tokenizer({"image_token": "<image>"}, bos=True)
    config = hf.LlavaConfig(
        vision_config=clip_vision(), text_config=text(), image_token_index=words.image_token_id,
        image_seq_length=4, vision_feature_layer=-2,
    )  # fmt: skip
    pictures = hf.CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    processor = hf.LlavaProcessor(
        pictures, words, patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=template,
    )  # fmt: skip
    return write(folder, hf.LlavaForConditionalGeneration(config), processor)


def llava_onevision(folder: Path) -> Path:
    words = tokenizer({"image_token": "<image>", "video_token": "<video>"})
    vision = clip_vision(model_type="siglip_vision_model", vision_use_head=False)
    config = hf.LlavaOnevisionConfig(
        vision_config=vision, text_config=text("qwen2"), image_token_index=words.image_token_id,
        video_token_index=words.video_token_id, image_grid_pinpoints=[[28, 28], [28, 56], [56, 28]],
        vision_feature_layer=-1, vision_feature_select_strategy="full", vision_aspect_ratio="anyres_max_9",
    )  # fmt: skip
    pictures = hf.LlavaOnevisionImageProcessor(
        size={"height": 28, "width": 28}, image_grid_pinpoints=[[28, 28], [28, 56], [56, 28]]
    )
    processor = hf.LlavaOnevisionProcessor(
        pictures, words, hf.LlavaOnevisionVideoProcessor(size={"height": 28, "width": 28}), num_image_tokens=4,
        vision_feature_select_strategy="full", chat_template=chatml("<image>\n"),
    )  # fmt: skip
    return write(folder, hf.LlavaOnevisionForConditionalGeneration(config), processor)


def instructblip(folder: Path) -> Path:
    words, reader = tokenizer(bos=True), tokenizer(bos=True)
    processor = hf.InstructBlipProcessor(hf.BlipImageProcessor(size={"height": 28, "width": 28}), words, reader, 3)
    config = hf.InstructBlipConfig(
        vision_config=clip_vision(model_type="instructblip_vision_model"),
        qformer_config={
            "model_type": "instructblip_qformer", "vocab_size": 400, "hidden_size": WIDTH, "num_hidden_layers": 2,
            "num_attention_heads": 2, "intermediate_size": 48, "encoder_hidden_size": WIDTH,
            "cross_attention_frequency": 1, "pad_token_id": 2,
        },
        text_config=text(), num_query_tokens=3, image_token_index=words.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    return write(folder, hf.InstructBlipForConditionalGeneration(config), processor)


def qwen2_vl(folder: Path, version: str = "2") -> Path:
    named = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
    marks = {"vision_bos_token": "<|vision_start|>", "vision_eos_token": "<|vision_end|>"}
    words = tokenizer(named | marks, ["<|im_start|>", "<|im_end|>"])
    rope = {"rope_type": "default", "type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
    ids = {
        "image_token_id": words.image_token_id, "video_token_id": words.video_token_id,
        "vision_start_token_id": words.vision_bos_token_id, "vision_end_token_id": words.vision_eos_token_id,
    }  # fmt: skip
    vision: dict[str, Any] = {"depth": 2, "num_heads": 2, "patch_size": 14, "spatial_merge_size": 2}
    if version == "2":
        vision |= {"embed_dim": WIDTH, "hidden_size": WIDTH, "mlp_ratio": 2}
        config: Any = hf.Qwen2VLConfig(
            text_config=text("qwen2_vl_text", rope_scaling=rope), vision_config=vision, **ids
        )
        model: Any = hf.Qwen2VLForConditionalGeneration(config)
        make: Any = hf.Qwen2VLProcessor
    else:
        vision |= {"hidden_size": WIDTH, "out_hidden_size": WIDTH, "intermediate_size": 48, "window_size": 56}
        vision |= {"fullatt_block_indexes": [1]}
        config = hf.Qwen2_5_VLConfig(
            text_config=text("qwen2_5_vl_text", rope_scaling=rope), vision_config=vision, **ids
        )
        model, make = hf.Qwen2_5_VLForConditionalGeneration(config), hf.Qwen2_5_VLProcessor
    template = chatml("<|vision_start|><|image_pad|><|vision_end|>")
    size = {"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 8}
    pictures = hf.Qwen2VLImageProcessor(size=size)
    processor = make(pictures, words, hf.Qwen2VLVideoProcessor(size=size), chat_template=template)
    return write(folder, model, processor)


def qwen2_5_vl(folder: Path) -> Path:
    return qwen2_vl(folder, "2.5")


def chameleon(folder: Path) -> Path:
    codes = [f"IMGIMG{''.join('ABCDEFGHIJ'[int(digit)] for digit in f'{number:04d}')}Z" for number in range(8)]
    marks = {"image_token": "<image>", "boi_token": "<racm3:break>", "eoi_token": "<eoss>"}
    words = tokenizer({**marks, "sep_token": "<reserved08706>"}, codes, bos=True)
    vq = {
        "embed_dim": 8, "num_embeddings": 8, "latent_channels": 8, "resolution": 28, "base_channels": 32,
        "channel_multiplier": [1, 2], "num_res_blocks": 1, "attn_resolutions": [],
    }  # fmt: skip
    own = text("chameleon") | {"vocabulary_map": words.get_vocab(), "vq_config": vq}
    own.pop("model_type")
    pictures = hf.ChameleonImageProcessor(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8})
    processor = hf.ChameleonProcessor(pictures, words, image_seq_length=16)
    return write(folder, hf.ChameleonForConditionalGeneration(hf.ChameleonConfig(**own)), processor)


def emu3(folder: Path) -> Path:
    marks = {
        "image_token": "<image>", "boi_token": "<|image start|>", "eoi_token": "<|image end|>",
        "image_wrapper_token": "<|image token|>", "eof_token": "<|extra_201|>",
    }  # fmt: skip
    words = tokenizer(marks, ["<|extra_200|>", *(f"<|visual token {number:06d}|>" for number in range(8))])
    vq = {
        "codebook_size": 8, "embed_dim": 4, "latent_channels": 4, "base_channels": 32,
        "channel_multiplier": [1, 1, 1, 1], "num_res_blocks": 1, "attn_resolutions": [],
        "temporal_downsample_factor": 1, "hidden_size": 32,
    }  # fmt: skip
    vocabulary = {token: number for token, number in words.get_vocab().items() if token.startswith("<")}
    config = hf.Emu3Config(vq_config=vq, text_config=text("emu3_text_model"), vocabulary_map=vocabulary)
    pictures = hf.Emu3ImageProcessor(min_pixels=16 * 16, max_pixels=32 * 32)
    template = inline("USER: ", " ASSISTANT:", "<image>", "You are a helpful assistant. ")
    processor = hf.Emu3Processor(pictures, words, chat_template=template)
    return write(folder, hf.Emu3ForConditionalGeneration(config), processor)


def janus(folder: Path) -> Path:
    marks = {"image_token": "<image_placeholder>", "boi_token": "<begin_of_image>", "eoi_token": "<end_of_image>"}
    words = tokenizer(marks, ["<|User|>", "<|Assistant|>"], bos=True)
    vq = {
        "embed_dim": 8, "num_embeddings": 16, "latent_channels": 8, "num_patches": 4, "base_channels": 32,
        "channel_multiplier": [1, 1, 1], "num_res_blocks": 1, "projection_dim": WIDTH, "image_token_embed_dim": WIDTH,
    }  # fmt: skip
    vision = {
        "model_type": "janus_vision_model", "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": 16, "patch_size": 8, "projection_dim": WIDTH, "num_image_tokens": 4, "mlp_ratio": 2.0, "depth": 2,
    }  # fmt: skip
    config = hf.JanusConfig(text_config=text(), vision_config=vision, vq_config=vq, image_token_id=words.image_token_id)
    model = hf.JanusForConditionalGeneration(config)
    model.generation_config.generation_kwargs = {"boi_token_id": words.boi_token_id}
    pictures = hf.JanusImageProcessor(size={"height": 16, "width": 16}, min_size=4)
    template = inline("<|User|>: ", "\n\n<|Assistant|>:", "<image_placeholder>\n")
    processor = hf.JanusProcessor(pictures, words, chat_template=template, num_image_tokens=4)
    return write(folder, model, processor)


KINDS: dict[str, Callable[[Path], Path]] = {
    "llava": llava,
    "llava_onevision": llava_onevision,
    "instructblip": instructblip,
    "qwen2_vl": qwen2_vl,
    "qwen2_5_vl": qwen2_5_vl,
    "chameleon": chameleon,
    "emu3": emu3,
    "janus": janus,
}
