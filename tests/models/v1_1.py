"""The golden VARGPT-v1.1 and small ones of its kind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.data.golden.weights import tensor, value
from tests.golden import Golden, load_golden, pictures
from tests.models.cases import bit_tokenizer, small_model
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.models.core.config import (
    DecoderConfig,
    LanguageConfig,
    TokenIds,
    TokenizerConfig,
    VARGPTConfig,
    VisionConfig,
)
from vargpt_lightning.models.core.scales import MapSize

BUFFERS = ("lfq.mask", "zero_k_bias")
"""Ends of the names of what the released code saves beside parameters."""
_NAMES = (
    ("visual.merger.", "vision_projector."),
    ("visual.", "vision_tower.model."),
    ("model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
    ("vargpt_gen.", "visual_decoder."),
    ("image_gen_projector_out.", "generation_projector_out."),
    ("image_gen_projector.", "generation_projector_in."),
    ("sos_embedding.", "start_embedding."),
)


def our_name(key: str) -> str:
    """The name of a golden parameter in our model."""
    for theirs, ours in _NAMES:
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    *layer, _, kind = key.removeprefix("vae_local.").split(".")  # each of its layers is wrapped in another
    return ".".join(("image_tokenizer", *layer, kind))


def golden_config(gold: Golden, **changes: Any) -> VARGPTConfig:
    """The configuration of the golden model, `published: official` unless `changes` say otherwise."""
    sizes, decoder, vae = (gold.meta[key] for key in ("config", "decoder", "vae"))
    special, vision = sizes["special_tokens"], sizes["vision_config"]
    schedule: tuple[MapSize, ...] = tuple((height, width) for _, height, width in gold.meta["schedule"])
    arguments: dict[str, Any] = {
        "language": LanguageConfig(
            family="qwen2_vl",
            width=sizes["hidden_size"],
            layers=sizes["num_hidden_layers"],
            heads=sizes["num_attention_heads"],
            kv_heads=sizes["num_key_value_heads"],
            mlp=sizes["intermediate_size"],
            vocabulary=sizes["vocab_size"],
            max_positions=sizes["max_position_embeddings"],
            rope_theta=sizes["rope_theta"],
            norm_eps=sizes["rms_norm_eps"],
            options={"mrope_section": sizes["rope_scaling"]["mrope_section"]},
        ),
        "vision": VisionConfig(
            kind="qwen2_vl",
            width=vision["embed_dim"],
            layers=vision["depth"],
            heads=vision["num_heads"],
            mlp=vision["embed_dim"] * vision["mlp_ratio"],
            max_tokens=4,
        ),
        "tokenizer": TokenizerConfig(
            kind="bits",
            scales=schedule,
            channels=vae["ch"],
            channel_multipliers=tuple(vae["mult"]),
            residual_blocks=vae["num_res_blocks"],
            code_size=vae["d"],
        ),
        "decoder": DecoderConfig(
            depth=decoder["depth"],
            width=decoder["embed_dim"],
            heads=decoder["num_heads"],
            chunks=decoder["block_chunks"],
            text_width=decoder["text_channels"],
            text_rows=decoder["text_maxlen"],
            drop_path=decoder["drop_path"],
            start_rows=special["image_gen_start_token_id"] + 1,
        ),
        "tokens": TokenIds(
            bos=sizes["bos_token_id"],
            eos=sizes["eos_token_id"],
            pad=sizes["pad_token_id"],
            image=sizes["image_token_id"],
            image_gen_start=special["image_gen_start_token_id"],
            image_gen_end=special["image_gen_end_token_id"],
            image_gen=special["image_gen_pad_token_id"],
        ),
        "preset": "v1_1",
        "published": "official",
        "unused_layer_norm": True,
    }
    return VARGPTConfig(**{**arguments, **changes})


def released_state(gold: Golden) -> dict[str, Tensor]:
    """The golden weights under the names of the released files, without its buffers."""
    rules = [(pattern, tuple(e) if isinstance(e, list) else e) for pattern, e in gold.meta["fill_rules"]]
    named = {key: shape for key, shape in gold.meta["keys"].items() if not key.endswith(BUFFERS)}
    return {key: torch.from_numpy(value(61, key, tuple(shape), rules)) for key, shape in named.items()}


def golden_model(gold: Golden | None = None, **changes: Any) -> VARGPT:
    """The golden model with its weights."""
    gold = load_golden("b4_v11") if gold is None else gold
    model = VARGPT(golden_config(gold, **changes))
    model.load_state_dict({our_name(key): each for key, each in released_state(gold).items()})
    return model.eval()


def golden_batch(gold: Golden, case: str) -> dict[str, Tensor]:
    """The batch of a golden case; labels are its ids unless it has others."""
    ids = gold.tensors[f"{case}.input_ids"].long()
    valid = gold.tensors.get(f"{case}.attention_mask", torch.ones_like(ids)).bool()
    labels = gold.tensors.get(f"{case}.labels", ids).long()
    batch = {"input_ids": ids, "attention_mask": valid, "labels": labels}
    if (ids == gold.meta["config"]["image_token_id"]).any():
        batch["pixel_values"] = strip()
    if drawn := int((ids == gold.meta["config"]["special_tokens"]["image_gen_start_token_id"]).sum()):
        batch["drawn_pixels"] = pictures(41, 2, 128)[:drawn]
    return batch


def strip() -> Tensor:
    """A seen picture of 2 x 2 tokens whose pixels do not matter (see `golden_patches`)."""
    strip_14SW = torch.zeros(1, 4, 14, 4 * 4 * 14)
    for token, mark in enumerate((1.0, 1.0, 2.0, 2.0)):
        strip_14SW[0, 3, :, token * 56 : (token + 1) * 56] = mark
    return strip_14SW


@contextmanager
def golden_patches(model: VARGPT) -> Iterator[None]:
    """In the block the seen picture is the golden one, whose two frames differ as no picture's of ours do."""
    rows_MP = torch.from_numpy(tensor(62, "pixel_values", (16, 1176), 0))
    embed: Any = model.get_submodule("vision_tower.model.patch_embed")
    hook = embed.register_forward_hook(lambda module, _, out: F.linear(rows_MP, module.proj.weight.flatten(1))[None])
    try:
        yield
    finally:
        hook.remove()


def small_v1_1(seed: int = 3, **changes: Any) -> VARGPT:
    """A small VARGPT-v1.1 with pictures of 30 tokens of 6 bits; `published: paper` unless `changes` say otherwise."""
    language = LanguageConfig(
        family="qwen2_vl", width=32, layers=2, heads=4, kv_heads=2, mlp=64, vocabulary=112, max_positions=512
    )
    decoder = DecoderConfig(
        depth=2, width=32, heads=4, text_rows=6, start_rows=3, drop_path=0.0, class_dropout=0.0, chunks=2
    )
    given = {"language": language, "tokenizer": bit_tokenizer(), "decoder": decoder, "preset": "v1_1"}
    return small_model(seed, **{**given, **changes})
